"""The classifier that a model ends in, what flows into it, and a model left as it was."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from tightframe.errors import ClassifierError
from tightframe.hooks import device_of, evaluation, find_classifier


def mlp() -> nn.Sequential:
    return nn.Sequential(OrderedDict(body=nn.Linear(5, 6), act=nn.ReLU(), head=nn.Linear(6, 3)))


class WithAuxiliary(nn.Module):
    """The head is followed by an auxiliary layer, so that the last linear layer is not the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.auxiliary = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 2)


class Timm(WithAuxiliary):
    def get_classifier(self) -> nn.Module:
        return self.head


class Transformer(nn.Module):
    """A causal language model's skeleton: token embeddings tied to the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(7, 4)
        self.lm_head = nn.Linear(4, 7, bias=False)
        self.lm_head.weight = self.embeddings.weight
        self.value_head = nn.Linear(4, 1)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.lm_head


# ---------------------------------------------------------------------------------------------- finding it


def test_the_last_linear_layer_is_the_classifier() -> None:
    model = mlp()
    found = find_classifier(model)
    assert found.name == "head"
    assert found.module is model.head
    assert found.class_dim == -1
    torch.testing.assert_close(found.weight, model.head.weight.detach().double(), rtol=0, atol=0)
    torch.testing.assert_close(found.bias, model.head.bias.detach().double(), rtol=0, atol=0)


def test_by_name() -> None:
    model = mlp()
    assert find_classifier(model, "body").module is model.body


def test_by_a_nested_name() -> None:
    model = nn.Sequential(mlp(), nn.Linear(3, 2))
    assert find_classifier(model, "0.head").module is model[0].head


def test_an_unknown_name_is_answered_with_the_linear_layers() -> None:
    with pytest.raises(ClassifierError, match=r"no module or parameter 'fc'.*body, head\."):
        find_classifier(mlp(), "fc")


def test_an_unknown_name_in_a_model_without_linear_layers() -> None:
    with pytest.raises(ClassifierError, match=r"no module or parameter 'fc'.*none\."):
        find_classifier(nn.Sequential(nn.Conv2d(1, 2, 3)), "fc")


def test_a_model_that_is_the_classifier() -> None:
    model = nn.Linear(4, 3)
    found = find_classifier(model)
    assert found.name == ""
    assert found.module is model


def test_without_bias() -> None:
    assert find_classifier(nn.Linear(4, 3, bias=False)).bias is None


def test_weight_and_bias_are_detached_copies() -> None:
    model = mlp().double()  # where a cast alone would copy nothing
    found = find_classifier(model)
    before = found.weight.clone(), found.bias.clone()
    with torch.no_grad():
        model.head.weight.add_(1)
        model.head.bias.add_(1)
    assert not found.weight.requires_grad
    assert torch.equal(found.weight, before[0])
    assert torch.equal(found.bias, before[1])


def test_timms_accessor_goes_before_the_last_linear_layer() -> None:
    assert find_classifier(WithAuxiliary()).name == "auxiliary"
    assert find_classifier(Timm()).name == "head"


def test_a_name_goes_before_the_accessor() -> None:
    assert find_classifier(Timm(), "auxiliary").name == "auxiliary"


def test_transformers_accessor_finds_the_tied_head() -> None:
    model = Transformer()
    found = find_classifier(model)
    assert found.name == "lm_head"
    assert found.module is model.lm_head
    assert torch.equal(found.weight, model.embeddings.weight.detach().double())


def test_an_accessor_that_returns_none_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transformer, "get_output_embeddings", lambda self: None)
    assert find_classifier(Transformer()).name == "value_head"


@pytest.mark.parametrize("answer", [nn.Identity(), (nn.Linear(6, 3), nn.Linear(6, 3))])
def test_an_accessor_that_returns_no_linear_layer(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    monkeypatch.setattr(Timm, "get_classifier", lambda self: answer)
    with pytest.raises(ClassifierError, match=type(answer).__name__):
        find_classifier(Timm())


def test_an_accessor_that_returns_a_layer_of_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timm, "get_classifier", lambda self: nn.Linear(6, 3))
    with pytest.raises(ClassifierError):
        find_classifier(Timm())


@pytest.mark.parametrize(
    "convolution", [nn.Conv1d(6, 3, 1), nn.Conv2d(6, 3, 1), nn.Conv3d(6, 3, 1)], ids=["1d", "2d", "3d"]
)
def test_a_pointwise_convolution_is_a_classifier(convolution: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(9, 9), convolution)
    found = find_classifier(model)
    assert found.name == "1"
    assert found.class_dim == 1
    assert found.weight.shape == (3, 6)
    assert torch.equal(found.weight, convolution.weight.detach().double().reshape(3, 6))


def test_no_linear_layer() -> None:
    with pytest.raises(ClassifierError, match=r"no linear layer.*classifier="):
        find_classifier(nn.Sequential(nn.Embedding(7, 4), nn.Conv2d(4, 3, 3), nn.LayerNorm(4)))


@pytest.mark.parametrize(
    "layer",
    [nn.Embedding(7, 4), nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, (1, 3)), nn.LayerNorm(4), nn.ReLU()],
    ids=["embedding", "3x3", "1x3", "norm", "relu"],
)
def test_a_layer_that_is_no_linear_map_is_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(ClassifierError, match=rf"1x1 convolution or a head; got .*{type(layer).__name__}"):
        find_classifier(nn.Sequential(nn.Linear(4, 4), layer), "1")


# ---------------------------------------------------------------------------------------------- evaluation


def test_every_modules_mode_is_restored() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()))
    model.train()
    model[1][0].eval()  # a frozen batch normalisation inside a model in training
    with evaluation(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, True, False, True]


@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_is_off_inside_and_restored(enabled: bool) -> None:
    with torch.set_grad_enabled(enabled):
        with evaluation(mlp()):
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled() is enabled


def test_all_is_restored_after_an_error() -> None:
    model = mlp().train()

    def fail() -> None:
        with evaluation(model):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def test_a_train_method_that_does_more_is_not_called() -> None:
    """Adapters that are merged into the weights in eval mode, for instance."""

    class Merging(nn.Linear):
        calls = 0

        def train(self, mode: bool = True) -> "Merging":
            self.calls += 1
            return super().train(mode)

    model = nn.Sequential(Merging(3, 3), nn.Dropout())
    with evaluation(model):
        assert not any(module.training for module in model.modules())
    assert model[0].calls == 0
    assert all(module.training for module in model.modules())


def test_the_device_is_that_of_the_first_parameter_that_is_loaded() -> None:
    offloaded, loaded = nn.Linear(2, 2, device="meta"), nn.Linear(2, 2)
    assert device_of(nn.Sequential(offloaded, loaded)) == torch.device("cpu")
    assert device_of(loaded) == device_of(offloaded) == device_of(nn.ReLU()) == torch.device("cpu")
