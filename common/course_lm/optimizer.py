"""The two optimizers of training: Muon for the layers' matrices, AdamW for the rest."""

from collections import defaultdict

import torch
from torch import Tensor, nn


@torch.compile(dynamic=False, disable=not torch.cuda.is_available())
def orthogonalise(gradients: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix of each of [count, rows, columns], by five Newton-Schulz steps.

    The coefficients are those of Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradients.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; all matrices of one size in one batch."""

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.groups_by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            self.groups_by_shape[tuple(parameter.shape)].append(parameter)

    @torch.no_grad()
    def step(self) -> None:
        group = self.param_groups[0]
        for shape, parameters in self.groups_by_shape.items():
            gradients = [parameter.grad for parameter in parameters]
            buffers = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])
            updates = orthogonalise(torch.stack(ahead)) * max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(
                parameters, list(updates.to(parameters[0].dtype).unbind()), alpha=-group["lr"]
            )


def optimizers(model: nn.Module, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embedding and norms. Each remembers its peak rate."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    made = [
        Muon(matrices, lr=matrix_lr, weight_decay=0.02),
        torch.optim.AdamW(
            others, lr=other_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=torch.cuda.is_available()
        ),
    ]
    for optimizer in made:
        optimizer.param_groups[0]["peak_lr"] = optimizer.param_groups[0]["lr"]
    return made


def schedule(progress: float, warm_up: float = 0.01, decay: float = 0.5) -> float:
    """The factor on the peak rate at a share of the training: rise, plateau, straight fall to near zero."""
    if progress < warm_up:
        return progress / warm_up
    return max(0.01, min(1.0, (1 - progress) / decay))
