"""Every test runs with the shapes in the signatures of `functional` checked, on one thread, and can be interrupted."""

import signal

import torch
from jaxtyping import install_import_hook

# The numeric tower: an int is a good float.
install_import_hook("rqe_mappo.functional", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
torch.set_num_threads(1)  # tensors are small here
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and tests send it
