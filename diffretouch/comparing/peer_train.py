"""How a peer's arm is trained: on the same prepared views, in the same loop, as ours."""

from __future__ import annotations

import json
import sys

import torch
from safetensors.torch import save_file
from torch import nn

from diffretouch.comparing.peer_sample import WEIGHTS
from diffretouch.config import Params
from diffretouch.devices import compute_alike
from diffretouch.files.atomic import whole, write_text
from diffretouch.files.workspace import new_dir, stage_dir, training_dir
from diffretouch.peers import new_peer
from diffretouch.peers.objective import PeerObjective
from diffretouch.training import ranks
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.loop import fit
from diffretouch.training.prepare import open_prepared
from diffretouch.training.resume import States

CODE = ("peers", "comparing/peer_train.py")
"""What a peer's weights depend on beside what ours do."""


def run(params: Params, dataset: str, network: str, letter: str = "") -> None:
    """Train the peer `network` on the prepared views, of all experts or of the one with this `letter`.

    The same command goes on where an interrupted run stopped.
    """
    torch.set_num_threads(params.runtime.threads)
    settings, folder = params.train, training_dir(dataset)
    accelerator = ranks.new_accelerator(params.runtime.device)
    device = accelerator.device
    compute_alike(device)
    prepared = open_prepared(params, dataset, folder / "views", device)
    expert = params.corpus(dataset).experts.index(letter) if letter else None
    peer = new_peer(network, settings.seed).to(device)
    peer.detail = prepared.scheme.size
    told = {"network": network, "expert": letter, "runtime.processes": accelerator.num_processes}
    marks = {**prepared.marks(settings, CODE), **told}
    history: list[dict[str, float]] = []
    fit(
        net=peer,
        objective=PeerObjective(peer, prepared.train, settings, expert),
        groups=peer.groups(settings.learning_rate),
        settings=settings,
        accelerator=accelerator,
        states=(states := States(folder, marks, params.runtime.keep_checkpoints)),
        validate=lambda averaged, _step, _stopping: {"val_psnr": _psnr(averaged, prepared.val, expert, device)},
        on_point=history.append,
    )
    out = new_dir(stage_dir("train", dataset))
    with whole(out / WEIGHTS) as temporary:
        save_file({name: value.contiguous().cpu() for name, value in peer.state_dict().items()}, temporary)
    write_text(out / "history.jsonl", "".join(json.dumps(point) + "\n" for point in history))
    states.clear()
    accelerator.end_training()


@torch.no_grad()
def _psnr(peer: nn.Module, data: GroundTruths, expert: int | None, device: torch.device) -> float:
    """To the experts it learns from, on whole validation photos at training size."""
    experts = range(data.experts) if expert is None else [expert]
    found = []
    for i in range(len(data)):
        made = peer(unit(data.photos[i : i + 1]).to(device)).clamp(0, 1).cpu()
        errors = torch.stack([(made[0] - unit(data.results[i, k])).square().mean() for k in experts])
        found.append(float((-10 * errors.clamp(min=1e-10).log10()).mean()))
    print(f"val_psnr {sum(found) / len(found):.2f}", file=sys.stderr, flush=True)
    return sum(found) / len(found)
