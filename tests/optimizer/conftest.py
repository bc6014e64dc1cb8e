"""Settings of the optimizer's tests: one thread, and examples that are the same on every run."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("optimizer", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("optimizer")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
