"""tightframe inside other frameworks: one module per framework, which needs the extra of the same name.

`lightning` and `transformers` have a `CollapseCallback`, `torchmetrics` a metric, `tensorboard` and `wandb` have
trackers for `Monitor`. Import from the module: `from tightframe.integrations.lightning import CollapseCallback`.
"""
