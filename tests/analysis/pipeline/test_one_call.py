"""`interbasis.analyze`: one call from a model and its data to modules and evidence."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import interbasis
from interbasis.analysis import Analysis, Network, analyze
from interbasis.analysis.errors import DataError, InputError


class TwoPictures(nn.Module):
    """Two pictures, a channel each, in grouped convolutions and block-diagonal layers: two networks side by side."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(2, 8, 3, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.hidden, self.out = nn.Linear(8 * 4, 16), nn.Linear(16, 8)
        with torch.no_grad():
            for layer in (self.hidden, self.out):
                apart = torch.ones_like(layer.weight)
                half_out, half_in = (n // 2 for n in layer.weight.shape)
                apart[:half_out, half_in:] = apart[half_out:, :half_in] = 0
                layer.weight.mul_(2 * apart)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return self.out(torch.tanh(self.hidden(h.flatten(1))))


@pytest.fixture(scope="module")
def loader() -> DataLoader[Any]:
    x = torch.randn(400, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, torch.arange(400) % 8), batch_size=64, shuffle=True)


@pytest.fixture(scope="module")
def found(loader: DataLoader[Any]) -> Analysis:
    return interbasis.analyze(TwoPictures(), loader, seed=1)


def test_a_network_of_two_pictures_is_taken_apart_without_an_option(found: Analysis) -> None:
    assert (found.partition.n_modules, found.verdict) == (2, "supported")
    assert found.graph.cuts == ("hidden:in", "out:in", "out")
    last = found.partition.labels[-1]
    assert len(set(last[:4])) == len(set(last[4:])) == 1 != len(set(last))
    assert found.precision == "float64"
    assert found.data is not None
    assert found.data.targets is not None
    assert found.n == 400
    assert found.recipe.partition.seed == 1


def test_summary_says_verdict_cuts_and_what_they_were_computed_from(found: Analysis) -> None:
    lines = found.summary.splitlines()
    assert lines[0].startswith("2 modules, supported: ")
    assert max(map(len, lines)) <= 80
    table = {line.split()[0]: line.split()[1:] for line in lines[2:7] if line}
    assert table["out"] == ["8", "8", "4", "4", "0"]
    assert "400 data points, global basis, mse loss" in found.summary
    assert repr(found) == found.summary


def test_model_is_left_as_it_was(loader: DataLoader[Any]) -> None:
    model = TwoPictures().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    analyze(model, loader, control=False, resolution=1.0)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.dtype == before[name].dtype for name, value in model.state_dict().items())


def test_analysis_is_drawn_listed_reported_and_stored(found: Analysis, tmp_path: Path) -> None:
    frame = found.to_frame()
    assert list(frame.columns) == ["cut", "coordinate", "module", "confidence", "importance"]
    assert len(frame) == sum(found.graph.widths)
    assert frame.groupby("cut").size()["out"] == 8
    assert found.plot().axes
    page = found.report(tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "2 modules, supported" in page
    assert "<h1>TwoPictures</h1>" in page
    assert f"interbasis {interbasis.__version__}" in page
    assert "<h1>A &lt; B</h1>" in found.report(tmp_path / "report.html", title="A < B").read_text()
    assert "http" not in re.sub('base64,[^"]*|http-equiv', "", page)  # four letters of a picture may be these
    again = Analysis.load(found.save(tmp_path / "found.safetensors"))
    assert again == found
    assert again.network is None
    assert again.summary == found.summary


def test_modules_at_no_cut_are_named(loader: DataLoader[Any]) -> None:
    part = analyze(TwoPictures(), loader, cuts=["out:in", "out"], control=False, resolution=1.0)
    assert part.graph.settings["left_out"] == {"before": ["conv"], "between": [], "after": []}
    assert "At no cut, before the first cut: conv." in part.summary

    torch.manual_seed(0)
    deep = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    data = torch.randn(50, 4)
    left_out = Network(deep, ["0", "2", "3"]).left_out(data)
    assert left_out == ((), ("1",), ("4",))
    assert Network(deep, "auto", example=data).left_out(data) == ((), (), ())


def test_weights_count_where_they_mix_whoever_holds_them() -> None:
    class Own(nn.Module):
        """Weights of its own beside modules, and a table that is added to every position."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.table = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(5, 6))
            self.act, self.mix, self.out = nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(self.mix(self.act_in(x @ self.first) + self.table)))

        def act_in(self, h: Tensor) -> Tensor:
            return torch.relu(h)

    x = torch.randn(20, 5, 4)
    net = Network(Own(), "auto", example=x)
    assert net.cuts == ("mix:in", "act", "out")
    assert net.left_out(x) == ((), (), ())
    assert Network(Own(), ["act", "out"]).left_out(x).before == ("Own",)


def test_choices_are_those_of_the_recipe(loader: DataLoader[Any]) -> None:
    net = Network(TwoPictures(), ["hidden:in", "out"])
    x = torch.randn(60, 2, 6, 6)
    chosen = analyze(net, x, basis="neuron", epsilon=1e-3, resolution=1.0, control=False)
    assert (chosen.graph.basis, chosen.partition.epsilon, chosen.graph.widths) == ("neuron", 1e-3, (32, 8))
    recipe = chosen.recipe
    assert analyze(net, x, recipe=recipe) == chosen
    with pytest.raises(InputError, match="unknown in a recipe: colour"):
        analyze(net, x, colour="red")
    with pytest.raises(InputError, match="the model is a Network, which has its cuts"):
        analyze(net, x, cuts="auto")
    with pytest.raises(InputError, match="epsilon given beside a recipe"):
        analyze(net, x, recipe=recipe, epsilon=1.0)


def test_float32_is_used_where_float64_cannot_be() -> None:
    class Single(nn.Module):
        """Names its type, so that it cannot run in float64."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(x)).to(torch.float32))

    one = analyze(Single(), torch.randn(80, 4, generator=torch.Generator().manual_seed(0)), resolution=1.0)
    assert one.precision == "float32"
    assert one.recipe.graph.rank_tolerance == 1e-6
    assert "computed in float32" in one.summary.replace("\n", " ")


def test_data_of_another_precision_are_converted() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(80, 4)
    one, other = (analyze(model, data, resolution=1.0) for data in (x, x.double()))
    assert one == other
    with pytest.raises(DataError, match="the batch holds int64: convert it to the type of the model's parameters"):
        analyze(model, x.long())


def test_modules_without_tensors_and_computed_weights_do_not_matter() -> None:
    class Scale(nn.Module):
        """Called with a number, returns a number."""

        def forward(self, n: int) -> float:
            return float(n)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.scale, self.one = Scale(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
            self.two = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(x)) * self.scale(2))

    net = Network(Odd(), "auto", example=torch.randn(20, 4))
    assert net.cuts == ("one:in", "two:in", "two")


def test_towers_that_meet_in_a_cut_are_both_there() -> None:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.act, self.out = nn.Linear(4, 5), nn.Linear(4, 5), nn.ReLU(), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(torch.cat([self.a(x), self.b(x)], 1)))

    x = torch.randn(20, 4)
    net = Network(Towers(), "auto", example=x)
    assert (net.cuts, net.left_out(x)) == (("act", "out"), ((), (), ()))


def test_the_package_starts_without_torch() -> None:
    code = "import sys, interbasis; assert interbasis.__version__; assert 'torch' not in sys.modules"
    code += "; assert callable(interbasis.analyze) and 'torch' in sys.modules and 'analyze' in dir(interbasis)"
    subprocess.run([sys.executable, "-c", code], check=True)
    done = subprocess.run([sys.executable, "-m", "interbasis", "--help"], check=True, capture_output=True, text=True)
    assert "analyze" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        _ = interbasis.analyse
