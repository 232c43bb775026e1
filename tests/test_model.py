"""The model: identity at the start, published parameter counts, a bit-identical round trip, and the laws of noise."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from diffretouch.config import Train, load
from diffretouch.errors import UserError
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import load_autoencoder, new_autoencoder, new_pipeline
from diffretouch.model.grid import GridHead, Guide
from diffretouch.model.pipeline import timesteps
from diffretouch.seeds import generator


def tiny_train() -> Train:
    """The train section at the smallest widths."""
    train = load().train
    vae = train.autoencoder.model_copy(update={"channels": (8, 8, 8, 8), "steps": 3, "batch_size": 2, "crop": 32})
    small = {"channels": (8, 8), "attention": (False, True), "head_channels": 8, "network_size": 64, "autoencoder": vae}
    return train.model_copy(update=small)


@pytest.fixture(scope="module")
def pipe() -> RetouchPipeline:
    train = tiny_train()
    pipe = new_pipeline(train, new_autoencoder(train.autoencoder), "fixed_small", seed=1)
    # away from the identity, so that c and noise show
    last = pipe.grid_head.layers[-1]
    torch.nn.init.normal_(last.weight, std=0.3, generator=generator("test"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _photos(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 20, 30, generator=generator("photos"))


def _condition(count: int) -> torch.Tensor:
    return torch.rand(count, 4, generator=generator("c")) * 2 - 1


def test_starts_as_the_identity() -> None:
    train = tiny_train()
    pipe = new_pipeline(train, new_autoencoder(train.autoencoder), "fixed_small", seed=1)
    out = pipe(_photos(2), _condition(2), num_inference_steps=2, generator=generator("noise"))
    assert torch.equal(torch.stack(out.images), _photos(2))


def test_published_parameter_counts() -> None:
    """As published: 13,584 in the grid head, 109 in the guide; a 64x64 latent gives a 16x16 grid of 8 bins."""
    head, guide = GridHead(8), Guide()
    assert sum(p.numel() for p in head.parameters()) == 13_584
    assert sum(p.numel() for p in guide.parameters()) == 109
    assert head(torch.zeros(1, 4, 64, 64)).shape == (1, 12, 8, 16, 16)


def test_guide_is_grey_at_first() -> None:
    photo = _photos(1)
    assert torch.allclose(Guide()(photo), photo.mean(1, keepdim=True), atol=1e-6)


def test_round_trip_is_bit_identical(pipe: RetouchPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path, safe_serialization=True)
    again = RetouchPipeline.from_pretrained(tmp_path, local_files_only=True)
    first, second = (
        p(_photos(2), _condition(2), num_inference_steps=3, generator=generator("noise")) for p in (pipe, again)
    )
    assert torch.equal(first.grids, second.grids)
    assert not list(tmp_path.rglob("*.bin"))


def test_a_photo_does_not_depend_on_its_batch(pipe: RetouchPipeline) -> None:
    photos, c = _photos(3), _condition(3)
    together = pipe(photos, c, num_inference_steps=3, generator=[generator("n", i) for i in range(3)]).images
    for i in (2, 0, 1):
        alone = pipe(photos[i : i + 1], c[i : i + 1], num_inference_steps=3, generator=[generator("n", i)]).images[0]
        assert torch.allclose(alone, together[i], atol=1e-3)


def test_condition_and_noise_matter(pipe: RetouchPipeline) -> None:
    def grids(c: torch.Tensor, noise: str) -> torch.Tensor:
        return pipe(_photos(1), c, num_inference_steps=2, generator=generator(noise)).grids

    base = grids(torch.zeros(1, 4), "a")
    assert torch.equal(base, grids(torch.zeros(1, 4), "a"))
    assert not torch.equal(base, grids(torch.ones(1, 4), "a")) and not torch.equal(base, grids(torch.zeros(1, 4), "b"))


def test_photos_of_several_sizes(pipe: RetouchPipeline) -> None:
    photos = [torch.rand(3, 17, 40), torch.rand(3, 33, 21)]
    out = pipe(photos, torch.zeros(2, 4), num_inference_steps=1, last_timestep=900)
    assert [tuple(image.shape) for image in out.images] == [(3, 17, 40), (3, 33, 21)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_makes_the_pictures_of_a_cpu_and_of_large_photos_too(pipe: RetouchPipeline) -> None:
    draws = [generator("n", i) for i in range(2)]
    here = pipe(_photos(2), _condition(2), generator=draws).images
    there = copy.deepcopy(pipe).to("cuda")
    for photos in (_photos(2), _photos(2).cuda()):
        draws = [generator("n", i) for i in range(2)]
        made = there(photos, _condition(2), generator=draws).images
        for ours, theirs in zip(here, made, strict=True):
            torch.testing.assert_close(theirs.cpu(), ours, atol=5e-3, rtol=0)
    (large,) = there(torch.rand(1, 3, 5000, 7500), _condition(1), generator=generator("n")).images
    assert large.shape == (3, 5000, 7500) and torch.isfinite(large).all()


def test_timesteps() -> None:
    assert timesteps(20, 200)[0] == 999 and timesteps(20, 200)[-1] == 200 and len(timesteps(20, 200)) == 20
    assert timesteps(1, 850) == [850]


def test_wrong_arguments_are_named(pipe: RetouchPipeline) -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        pipe(_photos(2), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="200 lies outside the timesteps this model was trained on: 900 to 999"):
        pipe(_photos(2), torch.zeros(2, 4), last_timestep=200)
    with pytest.raises(ValueError, match="1 generators for 2 photos"):
        pipe(_photos(2), torch.zeros(2, 4), generator=[generator("n")])


def test_autoencoder_by_path_needs_its_checksum(tmp_path: Path) -> None:
    train = tiny_train()
    new_autoencoder(train.autoencoder).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="sha256"):
        load_autoencoder(str(tmp_path), "0" * 64)
    with pytest.raises(UserError, match="neither a folder nor in the local hub cache"):
        load_autoencoder("nobody/nothing", "0" * 64)
