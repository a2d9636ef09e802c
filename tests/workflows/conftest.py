"""The lab of the workflows: trained once, and converted once for all tests that were selected."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from workflows.conversions import Lab


@pytest.fixture(scope="session")
def lab(request, tmp_path_factory):
    """Trained models, and the conversions of the selected tests under way."""
    wanted = [item.callspec.params["conversion"] for item in request.session.items
              if "conversion" in getattr(getattr(item, "callspec", None), "params", {})]  # fmt: skip
    with ThreadPoolExecutor(2) as workers:
        lab = Lab(tmp_path_factory.mktemp("lab"), workers)
        lab.train()
        lab.order(list(dict.fromkeys(wanted)))
        yield lab
