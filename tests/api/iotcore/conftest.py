"""One local IoT Core for the tests of a module, and botocore in front of it that checks every answer."""
import pytest

from harness.botomodel import Checked
from harness.iotcore import LocalCore
from harness.x509 import Authority


@pytest.fixture(scope="module")
def core(cluster):
    with LocalCore(cluster) as it:
        yield it


@pytest.fixture(scope="module")
def api(core):
    return Checked(core.client())


@pytest.fixture(scope="module")
def loose(core):
    """Without botocore's own checks of parameters, so that ours are met."""
    return Checked(core.client(parameter_validation=False))


@pytest.fixture(scope="module")
def authority(api):
    """A registered, active CA."""
    it = Authority("Fixture CA")
    register(api, it)
    return it


def register(api, authority, active=True, **more):
    code = api("GetRegistrationCode")["registrationCode"]
    answer = api("RegisterCACertificate", caCertificate=authority.pem, verificationCertificate=authority.issue(code),
                 setAsActive=active, **more)
    assert answer["certificateId"] == authority.id
    return answer
