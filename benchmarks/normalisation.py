"""Where eval-mode batch normalisation makes the curves blip: the gap that a measurement reports, beside what it does.

    python benchmarks/normalisation.py

Digits, the demo's network, several learning rates: for each epoch the gap, and the ETF error in eval mode over that
with the data's own statistics. The last lines say how they go together on both sides of the threshold of `measure`.
"""

import copy

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tightframe import datasets, measure
from tightframe.demo.network import network
from tightframe.sources.normalisation import GAP

torch.set_num_threads(1)
data = datasets.load("digits")
loader = list(zip(data.train_images.split(512), data.train_labels.split(512), strict=True))
found = []
for rate in (0.05, 0.1, 0.2, 0.3, 1.0):
    torch.manual_seed(0)
    model = network(data.image_shape, data.num_classes)
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-2)
    for epoch in range(1, 26):
        model.train()
        for index in torch.randperm(len(data.train_labels)).split(128):
            optimiser.zero_grad()
            cross_entropy(model(data.train_images[index]), data.train_labels[index]).backward()
            optimiser.step()
        report = measure(model, loader, metrics=["etf_error"], progress=False)
        own = copy.deepcopy(model)
        for module in own.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean = module.running_var = None
        true = measure(own, [(data.train_images, data.train_labels)], metrics=["etf_error"], progress=False)
        gap, ratio = report.facts.normalisation_gap, report["etf_error"].value / true["etf_error"].value
        found.append((gap, ratio))
        print(f"learning rate {rate:4.2f}  epoch {epoch:2d}  gap {gap:.4f}  ETF error {ratio:.2f} times", flush=True)
for title, ratios in (
    (f"gap up to {GAP}", sorted(ratio for gap, ratio in found if gap <= GAP)),
    (f"gap above {GAP}", sorted(ratio for gap, ratio in found if gap > GAP)),
):
    tenth = len(ratios) // 10
    print(f"{title}: {len(ratios)} measurements, ETF error {ratios[tenth]:.2f} to {ratios[-1 - tenth]:.2f} times "
          f"(central 80 %), median {ratios[len(ratios) // 2]:.2f}")  # fmt: skip
