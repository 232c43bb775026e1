"""The released network in plain torch under the released names (ldm's), at any width: what a conversion is
compared with. Written from published facts and the known architecture of latent diffusion; it shares no code with ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, pad, silu


@dataclass(frozen=True)
class Size:
    width: int = 32
    mults: tuple[int, ...] = (1, 2, 2)
    layers: int = 1
    attends: tuple[bool, ...] = (True, True, False)
    head_channels: int = 16
    linear: bool = True
    vae_width: int = 32
    vae_mults: tuple[int, ...] = (1, 1, 1, 2)
    vae_layers: int = 1
    last_relu: bool = False


REAL = Size(320, (1, 2, 4, 4), 2, (True, True, True, False), 64, True, 128, (1, 2, 4, 4), 2)
"""As released."""


class Holder(nn.Module):
    """Named parts, called by whoever owns them."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def norm(width: int, eps: float = 1e-5) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps)


def conv(source: int, target: int, side: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(source, target, side, stride, side // 2)


# the U-Net


class ResBlock(nn.Module):
    def __init__(self, source: int, target: int, embedding: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(norm(source), nn.SiLU(), conv(source, target))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, target))
        self.out_layers = nn.Sequential(norm(target), nn.SiLU(), nn.Dropout(0), conv(target, target))
        self.skip_connection = nn.Identity() if source == target else conv(source, target, 1)

    def forward(self, x: Tensor, embedding: Tensor, _context: Tensor) -> Tensor:
        hidden = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(hidden)


class Attention(nn.Module):
    def __init__(self, width: int, context: int, head_channels: int) -> None:
        super().__init__()
        self.heads = width // head_channels
        self.to_q, self.to_k, self.to_v = (nn.Linear(w, width, bias=False) for w in (width, context, context))
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=2)
        return value * gelu(gate)


class Block(nn.Module):
    def __init__(self, width: int, head_channels: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(width, width, head_channels), Attention(width, 4, head_channels)
        self.ff = Holder(net=nn.Sequential(Gated(width), nn.Dropout(0), nn.Linear(4 * width, width)))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x), self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff.net(self.norm3(x))


class Transformer(nn.Module):
    def __init__(self, width: int, size: Size) -> None:
        super().__init__()
        self.linear = size.linear
        self.norm = norm(width, 1e-6)
        self.proj_in, self.proj_out = (
            nn.Linear(width, width) if size.linear else conv(width, width, 1) for _ in range(2)
        )
        self.transformer_blocks = nn.ModuleList([Block(width, size.head_channels)])

    def forward(self, x: Tensor, _embedding: Tensor, context: Tensor) -> Tensor:
        height, hidden = x.shape[2], self.norm(x)
        hidden = hidden if self.linear else self.proj_in(hidden)
        hidden = hidden.flatten(2).transpose(1, 2)
        hidden = self.proj_in(hidden) if self.linear else hidden
        for block in self.transformer_blocks:
            hidden = block(hidden, context)
        hidden = self.proj_out(hidden) if self.linear else hidden
        hidden = hidden.transpose(1, 2).unflatten(2, (height, -1))
        return x + (hidden if self.linear else self.proj_out(hidden))


class Down(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = conv(width, width, stride=2)

    def forward(self, x: Tensor, _embedding: Tensor, _context: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width)

    def forward(self, x: Tensor, _embedding: Tensor, _context: Tensor) -> Tensor:
        return self.conv(interpolate(x, scale_factor=2, mode="nearest"))


class In(nn.Conv2d):
    def forward(self, x: Tensor, _embedding: Tensor, _context: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class UNet(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.width = width = size.width
        embedding = 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        blocks, now, kept = [nn.ModuleList([In(7, width, 3, padding=1)])], width, [width]
        for level, (mult, attend) in enumerate(zip(size.mults, size.attends, strict=True)):
            for _ in range(size.layers):
                parts: list[nn.Module] = [ResBlock(now, mult * width, embedding)]
                now = mult * width
                blocks.append(nn.ModuleList(parts + [Transformer(now, size)] * attend))
                kept.append(now)
            if level < len(size.mults) - 1:
                blocks.append(nn.ModuleList([Down(now)]))
                kept.append(now)
        self.input_blocks = nn.ModuleList(blocks)
        middle = [ResBlock(now, now, embedding), Transformer(now, size), ResBlock(now, now, embedding)]
        self.middle_block = nn.ModuleList(middle)
        blocks = []
        for level, (mult, attend) in reversed(list(enumerate(zip(size.mults, size.attends, strict=True)))):
            for layer in range(size.layers + 1):
                parts = [ResBlock(now + kept.pop(), mult * width, embedding)]
                now = mult * width
                parts += [Transformer(now, size)] * attend
                blocks.append(nn.ModuleList(parts + [Up(now)] * (level > 0 and layer == size.layers)))
        self.output_blocks = nn.ModuleList(blocks)
        self.out = nn.Sequential(norm(now), nn.SiLU(), conv(now, 8))

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        """Z_t beside the photo (N,7,h,h), t (N,), c (N,1,4) -> eps beside the grid's features (N,8,h,h)."""
        half = self.width // 2
        angles = timestep[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        kept = []
        for block in self.input_blocks:
            for part in block:
                x = part(x, embedding, context)
            kept.append(x)
        for part in self.middle_block:
            x = part(x, embedding, context)
        for block in self.output_blocks:
            x = torch.cat([x, kept.pop()], dim=1)
            for part in block:
                x = part(x, embedding, context)
        return self.out(x)


# the autoencoder


class VaeResnet(nn.Module):
    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(source, 1e-6), conv(source, target)
        self.norm2, self.conv2 = norm(target, 1e-6), conv(target, target)
        self.nin_shortcut = nn.Identity() if source == target else conv(source, target, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(silu(self.norm2(hidden)))


class VaeAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width, 1e-6)
        self.q, self.k, self.v, self.proj_out = (conv(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        q, k, v = (part(hidden).flatten(2) for part in (self.q, self.k, self.v))
        weights = (q.transpose(1, 2) @ k / math.sqrt(q.shape[1])).softmax(2)
        return x + self.proj_out((v @ weights.transpose(1, 2)).unflatten(2, x.shape[2:]))


def vae_middle(width: int) -> Holder:
    return Holder(block_1=VaeResnet(width, width), attn_1=VaeAttention(width), block_2=VaeResnet(width, width))


def through_middle(middle: Holder, x: Tensor) -> Tensor:
    return middle.block_2(middle.attn_1(middle.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        now = size.vae_width
        self.conv_in = conv(3, now)
        levels = []
        for level, mult in enumerate(size.vae_mults):
            blocks = []
            for _ in range(size.vae_layers):
                blocks.append(VaeResnet(now, mult * size.vae_width))
                now = mult * size.vae_width
            last = level == len(size.vae_mults) - 1
            down = {} if last else {"downsample": Holder(conv=nn.Conv2d(now, now, 3, 2))}
            levels.append(Holder(block=nn.ModuleList(blocks), **down))
        self.down = nn.ModuleList(levels)
        self.mid = vae_middle(now)
        self.norm_out, self.conv_out = norm(now, 1e-6), conv(now, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            for block in level.block:
                x = block(x)
            if hasattr(level, "downsample"):
                x = level.downsample.conv(pad(x, (0, 1, 0, 1)))
        return self.conv_out(silu(self.norm_out(through_middle(self.mid, x))))


class Decoder(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        now = size.vae_mults[-1] * size.vae_width
        self.conv_in, self.mid = conv(4, now), vae_middle(now)
        levels: list[nn.Module] = []
        for level, mult in reversed(list(enumerate(size.vae_mults))):
            blocks = []
            for _ in range(size.vae_layers + 1):
                blocks.append(VaeResnet(now, mult * size.vae_width))
                now = mult * size.vae_width
            up = {"upsample": Holder(conv=conv(now, now))} if level else {}
            levels.insert(0, Holder(block=nn.ModuleList(blocks), **up))
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = norm(now, 1e-6), conv(now, 3)

    def forward(self, z: Tensor) -> Tensor:
        x = through_middle(self.mid, self.conv_in(z))
        for level in reversed(self.up):
            for block in level.block:
                x = block(x)
            if hasattr(level, "upsample"):
                x = level.upsample.conv(interpolate(x, scale_factor=2, mode="nearest"))
        return self.conv_out(silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(size), Decoder(size)
        self.quant_conv, self.post_quant_conv = conv(8, 8, 1), conv(4, 4, 1)

    def encode(self, picture: Tensor) -> Tensor:
        """Mean of the posterior."""
        return self.quant_conv(self.encoder(picture))[:, :4]

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))


# grid and guide


class GuideTwin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.M, self.M_bias = nn.Parameter(torch.eye(3)), nn.Parameter(torch.zeros(1, 3))
        self.thresholds = nn.Parameter((torch.arange(16) / 16).expand(1, 1, 3, 16).clone())
        self.slopes = nn.Parameter(torch.eye(1, 16).expand(1, 1, 1, 3, 16).clone())
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, photo: Tensor) -> Tensor:
        """R in [-1,1], (N,3,H,W) -> (N,H,W) in [0,1]."""
        x = photo.permute(0, 2, 3, 1) @ self.M + self.M_bias
        curve = ((x[..., None] - self.thresholds).clamp(min=0) * self.slopes).sum(-1)
        return (curve.mean(-1) + self.bias).clamp(0, 1)


def hdrdecoder(last_relu: bool) -> Holder:
    coefficients = Holder(
        splat1=nn.Sequential(conv(4, 16, stride=2), nn.ReLU()),
        splat2=nn.Sequential(conv(16, 32, stride=2), nn.ReLU()),
        pred1=nn.Sequential(conv(32, 64, 1), *[nn.ReLU()] * last_relu),
        pred2=nn.Sequential(conv(64, 96, 1)),
    )
    return Holder(coefficients=coefficients, guide=GuideTwin())


def slice_and_apply(grid: Tensor, guide: Tensor, photo: Tensor) -> Tensor:
    """Trilinear at x GW/(W-1) - 1/2, y GH/(H-1) - 1/2, guide D - 1/2; then 3 rows of 3 weights + bias a pixel."""
    height, width = guide.shape[1:]
    depth, rows, columns = grid.shape[2:]
    z = (guide * depth - 0.5).clamp(0, depth - 1)
    y = (torch.arange(height) * rows / (height - 1) - 0.5).clamp(0, rows - 1)[None, :, None].expand_as(z)
    x = (torch.arange(width) * columns / (width - 1) - 0.5).clamp(0, columns - 1)[None, None].expand_as(z)
    photo_index = torch.arange(len(grid))[:, None, None]
    affine = torch.zeros(*guide.shape, 12)
    for corner in range(8):
        weight = torch.ones_like(z)
        index = []
        for place, count, bit in ((z, depth, corner & 1), (y, rows, corner >> 1 & 1), (x, columns, corner >> 2)):
            low = place.floor()
            weight = weight * (place - low if bit else 1 - place + low)
            index.append((low.long() + bit).clamp(max=count - 1))
        affine += weight[..., None] * grid.permute(0, 2, 3, 4, 1)[photo_index, *index]
    affine = affine.unflatten(3, (3, 4))
    out = (affine[..., :3] * photo.permute(0, 2, 3, 1)[..., None, :]).sum(-1) + affine[..., 3]
    return out.permute(0, 3, 1, 2)


# the whole


class Twin(nn.Module):
    def __init__(self, size: Size = Size()) -> None:
        super().__init__()
        self.model = Holder(diffusion_model=UNet(size))
        self.first_stage_model = Autoencoder(size)
        self.hdrdecoder = hdrdecoder(size.last_relu)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas = (1 - betas).cumprod(0)
        for name, values in {"betas": betas, "alphas_cumprod": alphas, "logvar": torch.zeros(1000)}.items():
            self.register_buffer(name, values.float())

    def network_input(self, photo: Tensor, side: int) -> Tensor:
        """R in [-1,1] at eight times the latent's side: every eighth pixel (nearest)."""
        return photo[:, :, :: photo.shape[2] // side, :: photo.shape[3] // side]

    def predict(self, latent: Tensor, timestep: Tensor, seen: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """eps (N,4,h,h) and the grid (N,12,8,h/4,h/4); c in the release's sign."""
        out = self.model.diffusion_model(torch.cat([latent, seen], dim=1), timestep, condition[:, None])
        head = self.hdrdecoder.coefficients
        features = head.pred2(head.pred1(head.splat2(head.splat1(out[:, 4:]))))
        return out[:, :4], features.view(len(out), 12, 8, *features.shape[2:])

    def retouch(self, photo: Tensor, grid: Tensor) -> Tensor:
        """D in [-1,1] of R in [-1,1]."""
        return slice_and_apply(grid, self.hdrdecoder.guide(photo), photo)

    def sample(self, seen: Tensor, condition: Tensor, noises: list[Tensor], variance: str) -> Tensor:
        """The grid of the last of len(noises) ancestral DDPM steps, 999 to 200, on respaced betas (Nichol 2021)."""
        steps = [int(t + 0.5) for t in torch.linspace(200, 999, len(noises), dtype=torch.float64)]
        alphas = self.alphas_cumprod.double()[steps]
        before = torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1]])
        betas = 1 - alphas / before
        small = betas * (1 - before) / (1 - alphas)
        sigma = (small if variance == "fixed_small" else betas).sqrt()
        z = noises[0]
        for i in reversed(range(len(steps))):
            eps, grid = self.predict(z, torch.full((len(z),), steps[i]), seen, condition)
            if i:
                z0 = (z - (1 - alphas[i]).sqrt().float() * eps) / alphas[i].sqrt().float()
                of_z0 = (before[i].sqrt() * betas[i] / (1 - alphas[i])).float()
                of_z = ((1 - betas[i]).sqrt() * (1 - before[i]) / (1 - alphas[i])).float()
                z = of_z0 * z0 + of_z * z + sigma[i].float() * noises[len(steps) - i]
        return grid


def random_twin(size: Size = Size(), seed: int = 0) -> Twin:
    """A twin in which every tensor matters: random weights, biases and norms; lively attention; D near R."""
    draw = torch.Generator().manual_seed(seed)
    twin = Twin(size).eval().requires_grad_(False)
    for name, weight in twin.named_parameters():
        noise = torch.randn(weight.shape, generator=draw)
        if "guide" in name:
            weight += 0.2 * noise
        elif weight.ndim > 1:
            lively = 3.0 if name.endswith(("attn1.to_q.weight", "attn1.to_k.weight")) else 1.0
            weight.copy_(lively * noise / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))  # a norm's weight, or a bias
    last = twin.hdrdecoder.coefficients.pred2[0]
    last.bias += torch.eye(3, 4).flatten().repeat_interleave(8)
    return twin
