"""tightframe inside other frameworks: a file for each, which imports it and needs the extra of the same name.

`lightning` and `transformers` have a `CollapseCallback`, `torchmetrics` a metric, `tensorboard` and `wandb` have
trackers for `Monitor`. Nothing is imported here: `from tightframe.integrations.lightning import CollapseCallback`.
"""
