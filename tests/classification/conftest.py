import pytest

from pvt_mm.data.digits import write_digits


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digits'
    write_digits(root, num_train=12, num_val=6, size=96)
    return root / 'classes'
