# Data-parallel training as PyTorch programs are written: torch.distributed over Gloo, initialised from
# the environment, gradients averaged by DistributedDataParallel. Each rank has data of its own; all
# must end with the same weights, which one process with all the data would have, too.
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
total = torch.tensor([float(rank + 1)])
dist.all_reduce(total)

x = torch.arange(1.0, 1.0 + 4 * world).reshape(world, 4, 1)


def train(model, batch):
    sgd = torch.optim.SGD(model.parameters(), lr=0.001)
    for _ in range(20):
        sgd.zero_grad()
        torch.nn.functional.mse_loss(model(batch), 3 * batch).backward()
        sgd.step()
    return [p.detach().clone() for p in model.parameters()]


def fresh():
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, 0.5)
    torch.nn.init.constant_(model.bias, 0.0)
    return model


ours = train(DistributedDataParallel(fresh()), x[rank])
alone = train(fresh(), x.reshape(-1, 1))
same = all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(ours, alone))
print(f"rank {rank} of {world} on node {os.environ['NODE_RANK']}: sum {total.item():.0f}, "
      f"weights {'as' if same else 'NOT as'} of one process", flush=True)
dist.barrier()
dist.destroy_process_group()
