"""The peers: published sizes, formulas against naive ones, any size, and training that parts cannot change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffretouch.bilateral_grid import apply_affine, slice_grid
from diffretouch.config import Train, load
from diffretouch.peers import PEERS, AdaptiveLut, CSRNet, HDRNet, Peer, new_peer, peer
from diffretouch.peers.lut3d import MONOTONE, SMOOTH, falls, identity_table, look_up, roughness
from diffretouch.peers.objective import PeerObjective
from diffretouch.seeds import generator
from diffretouch.training.data import GroundTruths
from diffretouch.training.objective import Part
from tests import peer_naive

NAMES = pytest.mark.parametrize("name", PEERS)
SIZES = [(1, 1), (7, 300), (31, 18)]


def _photo(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator("photo", *shape))


def _moved(name: str) -> Peer:
    """A peer away from its start, so that every part of it shows."""
    net = new_peer(name, seed=1)
    draw = generator("moved", name)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=draw)
    return net


def _settings(**changes: object) -> Train:
    plain = {"seed": 3, "flips": True, "input_exposure": 0.3, "input_white_balance": 0.05}
    return load().train.model_copy(update={**plain, **changes})


@pytest.fixture(scope="module")
def truths() -> GroundTruths:
    """Four smooth photos, two experts: one darker and cooler with more contrast, one who leaves them as they are."""
    coarse = _photo(4, 3, 4, 4)
    photos = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear") * 0.8 + 0.1
    results = torch.stack([(photos**1.6) * torch.tensor([0.7, 0.8, 0.95])[:, None, None], photos], dim=1)
    photos16, results16 = ((x * 65535).round().to(torch.uint16) for x in (photos, results))
    none, latent = torch.zeros(4, 2, 4), torch.zeros(4, 2, 4, 3, 3)
    return GroundTruths(photos16, results16, none, none[:, 0], none[:, 0], none, latent, latent)


@pytest.mark.parametrize(("name", "count", "published"), [("hdrnet", 482_077, 482e3), ("lut3d", 593_516, 593e3)])
def test_published_sizes(name: str, count: int, published: float) -> None:
    found = sum(p.numel() for p in new_peer(name, 0).parameters())
    assert found == count and found == pytest.approx(published, rel=0.01)


def test_csrnet_has_the_parameters_of_the_papers_code() -> None:
    assert sum(p.numel() for p in new_peer("csrnet", 0).parameters()) == 36_489


@NAMES
def test_weights_depend_on_name_and_seed_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (torch.nn.utils.parameters_to_vector(new_peer(name, s).parameters()) for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unknown_peer_is_answered_with_the_known() -> None:
    with pytest.raises(ValueError, match="unknown peer 'lut': there are hdrnet, lut3d, csrnet"):
        new_peer("lut", 0)


@torch.no_grad()
def test_first_pictures() -> None:
    photo = _photo(2, 3, 20, 30)
    assert torch.allclose(new_peer("hdrnet", 0)(photo), photo, atol=1e-6)
    assert (new_peer("lut3d", 0)(photo) - photo).abs().max() < 0.2


def test_the_identity_table_is_one() -> None:
    photo = _photo(1, 3, 9, 9).double()
    assert torch.allclose(look_up(identity_table(33)[None].double(), photo), photo, atol=1e-12)


@torch.no_grad()
def test_tables_against_scipy() -> None:
    net = _moved("lut3d")
    assert isinstance(net, AdaptiveLut)
    photo = _photo(2, 3, 13, 11)
    photo[0, :, 0, :4] = torch.tensor([[0.0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0]])  # corners
    tables, weights = net.tables.double().numpy(), net.weights(photo).double().numpy()
    assert np.ptp(weights) > 0.01
    for made, pixels, three in zip(net(photo), photo, weights, strict=True):
        each = [peer_naive.trilinear(table, pixels.double().numpy()) for table in tables]
        assert np.allclose(made.numpy(), np.tensordot(three, each, 1), atol=1e-5)


def test_colours_outside_count_as_the_nearest_inside() -> None:
    table = torch.rand(1, 3, 5, 5, 5, generator=generator("table"))
    wild = _photo(1, 3, 6, 6) * 3 - 1
    assert torch.equal(look_up(table, wild), look_up(table, wild.clamp(0, 1)))


def test_regularisers_against_loops() -> None:
    tables = torch.rand(3, 3, 4, 5, 6, generator=generator("tables"), dtype=torch.float64)
    measured = (roughness(tables).item(), falls(tables).item())
    assert measured == pytest.approx(peer_naive.roughness_and_falls(tables.numpy()), rel=1e-12)


def test_regulariser_weighs_as_published() -> None:
    net = _moved("lut3d")
    assert isinstance(net, AdaptiveLut)
    expected = 1e-4 * roughness(net.tables) + 10 * falls(net.tables)
    assert (SMOOTH, MONOTONE) == (1e-4, 10) and torch.equal(net.regulariser(), expected)
    # the identity alone: one of three channels rises by 1/32 along each axis, and nothing falls
    assert new_peer("lut3d", 0).regulariser().item() == pytest.approx(1e-4 / 32**2, rel=1e-3)
    assert [new_peer(name, 0).regulariser().item() for name in ("hdrnet", "csrnet")] == [0, 0]


@torch.no_grad()
def test_csrnet_against_a_loop_over_pixels() -> None:
    net = new_peer("csrnet", 1)
    assert isinstance(net, CSRNet)
    photo = _photo(1, 3, 4, 5)
    expected = peer_naive.csrnet(net, peer.seen(photo)[0].double().numpy(), photo[0].double().numpy())
    assert np.ptp(expected) > 0.01 and np.allclose(net(photo)[0].numpy(), expected, atol=1e-5)


@torch.no_grad()
def test_hdrnet_applies_its_grid_through_its_guide() -> None:
    net = _moved("hdrnet")
    assert isinstance(net, HDRNet)
    photo = _photo(2, 3, 19, 23)
    grid = net.grid(photo)
    assert grid.shape == (2, 12, 8, 16, 16) and grid.std(dim=(3, 4)).min() > 0
    assert torch.allclose(net(photo), apply_affine(slice_grid(grid, net.guide(photo)), photo), atol=1e-6)


@NAMES
@pytest.mark.parametrize("size", SIZES)
def test_any_size_and_bands_change_nothing(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    net, photo = _moved(name), _photo(2, 3, *size)
    whole = net(photo)
    assert whole.requires_grad and whole.shape == photo.shape
    for pixels in (1, 100, 1 << 14):
        monkeypatch.setattr(peer, "BAND_PIXELS", pixels)
        with torch.no_grad():
            assert torch.allclose(net(photo), whole, atol=1e-6)


@NAMES
def test_a_photos_retouch_does_not_depend_on_the_others(name: str) -> None:
    net, photo = _moved(name), _photo(3, 3, 20, 30)
    with torch.no_grad():
        assert torch.allclose(net(photo)[1:2], net(photo[1:2]), atol=1e-5)


@NAMES
def test_in_use_it_looks_at_photos_no_sharper_than_those_it_was_trained_on(name: str) -> None:
    net, photo = _moved(name), _photo(1, 3, 120, 90)
    small = torch.nn.functional.interpolate(photo, (16, 16), mode="bilinear", antialias=True)
    looked: list[Tensor] = []
    first = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1))
    first.register_forward_pre_hook(lambda _module, inputs: looked.append(inputs[0]))
    net.detail = 16
    with torch.no_grad():
        net(small)
        net(photo)
        net.detail = peer.SEEN
        net(photo)
    assert torch.equal(looked[0], looked[1]) and not torch.allclose(looked[1], looked[2], atol=0.02)


@NAMES
def test_a_few_steps_teach_a_retouch(name: str, truths: GroundTruths) -> None:
    net = new_peer(name, seed=0)
    objective = PeerObjective(net, truths, _settings(input_exposure=0.0, input_white_balance=0.0), expert=0)
    optimiser = torch.optim.AdamW(net.groups(rate=2e-3))
    errors = []
    for step in range(60):
        losses = objective.losses(net, Part(step, 0, 4, 4))
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        errors.append(losses["pixel"].item())
    assert np.mean(errors[-5:]) < 0.25 * min(errors[0], 0.15)


class Double(torch.nn.Module):
    """A peer computed in double precision, where rounding cannot hide behind tolerances."""

    def __init__(self, net: Peer) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*(x.double() for x in inputs))


@NAMES
def test_every_parameter_has_a_rate(name: str) -> None:
    net = new_peer(name, 0)
    groups = net.groups(rate=1e-3)
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in net.parameters()}
    assert groups[0]["lr"] == 1e-3 and all(0 < g["lr"] <= 1e-3 and g["weight_decay"] == 0 for g in groups)


def _gradient(objective: PeerObjective, part: Part) -> Tensor:
    loss = objective.losses(Double(objective.peer), part)["loss"]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(objective.peer.parameters()))])


@NAMES
def test_two_halves_are_the_whole_step(name: str, truths: GroundTruths) -> None:
    objective = PeerObjective(_moved(name), truths, _settings())
    whole = _gradient(objective, Part(5, 0, 4, 4))
    halves = [_gradient(objective, Part(5, first, first + 2, 4)) for first in (0, 2)]
    assert (sum(halves) / 2 - whole).abs().max() < 1e-9
    assert not torch.allclose(*halves)
    assert not torch.allclose(_gradient(objective, Part(6, 0, 4, 4)), whole)


def test_every_parameter_learns(truths: GroundTruths) -> None:
    for name in PEERS:
        net = _moved(name)
        loss = PeerObjective(net, truths, _settings()).losses(net, Part(0, 0, 4, 4))["loss"]
        still = [
            n
            for (n, p), g in zip(net.named_parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True)
            if not g.any()
        ]
        assert still == []


def test_pooled_draws_are_those_of_our_own_training(truths: GroundTruths) -> None:
    # HDRNet starts as the identity: its first loss is the mean squared difference of the photos and results drawn
    settings = _settings(flips=False, input_exposure=0.0, input_white_balance=0.0)
    objective = PeerObjective(new_peer("hdrnet", 0), truths, settings)
    draw = generator(3, "train", 8)
    view, expert = torch.randint(4, (6,), generator=draw), torch.randint(2, (6,), generator=draw)
    photos, results = truths.photos.numpy() / 65535, truths.results.numpy() / 65535
    squares = [(2 * (photos[v] - results[v, e])) ** 2 for v, e in zip(view.tolist(), expert.tolist(), strict=True)]
    for first, last in ((0, 6), (2, 5)):
        losses = objective.losses(objective.peer, Part(8, first, last, 6))
        assert losses["pixel"].item() == pytest.approx(np.mean(squares[first:last]), rel=1e-5)


def test_one_expert_is_followed_in_mirrors_too(truths: GroundTruths) -> None:
    settings = _settings(input_exposure=0.0, input_white_balance=0.0)
    net = new_peer("hdrnet", 0)
    same, other = (PeerObjective(net, truths, settings, e).losses(net, Part(1, 0, 16, 16)) for e in (1, 0))
    assert same["pixel"] < 1e-8 < 0.05 < other["pixel"]
    # errors are put on the photo alone
    disturbed = PeerObjective(net, truths, _settings(), 1).losses(net, Part(1, 0, 16, 16))
    assert disturbed["pixel"] > 1e-3


def test_an_expert_that_is_not_there_is_refused(truths: GroundTruths) -> None:
    with pytest.raises(ValueError, match="expert 2 of ground truths by 2"):
        PeerObjective(new_peer("csrnet", 0), truths, _settings(), 2)


def test_loss_is_error_and_regulariser(truths: GroundTruths) -> None:
    net = _moved("lut3d")
    losses = PeerObjective(net, truths, _settings()).losses(net, Part(0, 0, 4, 4))
    assert list(losses) == ["loss", "pixel", "regulariser"]
    assert torch.equal(losses["loss"], losses["pixel"] + losses["regulariser"])
    assert losses["regulariser"].item() == pytest.approx(4 * net.regulariser().item())


def test_features_drop_out_as_drawn() -> None:
    net = _moved("lut3d")
    assert isinstance(net, AdaptiveLut)
    photo = _photo(1, 3, 8, 8)
    with torch.no_grad():
        kept, dropped = (net.weights(photo, torch.full((1, *net.chances), c)) for c in (0.99, 0.0))
        doubled = 2 * (net.weights(photo) - net.weigh.bias) + net.weigh.bias
    assert torch.equal(dropped[0], net.weigh.bias.detach())
    assert torch.allclose(kept, doubled, atol=1e-4)
