import pytest

from modelpack.registry.addresses import Origin
from modelpack.registry.errors import UnsafeAddressError
from modelpack.registry.realms import check_realm, same_site

SECURE = Origin("https", "registry.example.com", 443)
PLAIN = Origin("http", "registry.example.com", 5000)
LOCAL = Origin("http", "127.0.0.1", 5000)


def resolver(*found):
    return lambda host, port: list(found)


PUBLIC = resolver("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946")


@pytest.mark.parametrize(
    ("endpoint", "realm", "with_credentials"),
    [
        (SECURE, "https://registry.example.com/token", True),
        (SECURE, "https://registry.example.com:8443/token?x=1", True),
        (SECURE, "https://auth.example.com/token", True),
        (SECURE, "https://example.com/jwt/auth", True),
        (SECURE, "https://auth.other.org/token", False),
        (PLAIN, "http://registry.example.com:5001/token", True),
        (PLAIN, "https://auth.example.com/token", True),
        (LOCAL, "http://127.0.0.1:5001/token", True),
        (Origin("http", "::1", 5000), "http://[::1]:5001/token", True),
        (Origin("https", "registry-1.docker.io", 443), "https://auth.docker.io/token", True),
    ],
    ids=[
        "own host",
        "own host, other port",
        "sibling",
        "parent",
        "another site: anonymously",
        "plain on own host",
        "plain registry, secure realm",
        "loopback",
        "IPv6 loopback",
        "Docker Hub",
    ],
)
def test_allowed(endpoint, realm, with_credentials):
    assert check_realm(realm, endpoint, resolve=PUBLIC) is with_credentials


@pytest.mark.parametrize(
    ("endpoint", "realm"),
    [
        (SECURE, "http://registry.example.com/token"),
        (PLAIN, "http://auth.example.com/token"),
        (SECURE, "https://169.254.169.254/latest"),
        (SECURE, "https://10.0.0.1/token"),
        (SECURE, "https://93.184.216.34/token"),
        (SECURE, "https://[fe80::1]/token"),
        (SECURE, "https://[::ffff:169.254.169.254]/token"),
        (SECURE, "https://2130706433/token"),
        (SECURE, "https://127.1/token"),
        (SECURE, "https://0x7f.0.0.1/token"),
        (SECURE, "https://0x7f000001/token"),
        (SECURE, "https://localhost/token"),
        (SECURE, "https://any.localhost/token"),
        (SECURE, "https://metadata/token"),
        (LOCAL, "http://localhost:5001/token"),
        (LOCAL, "http://127.0.0.2:5001/token"),
        (LOCAL, "http://169.254.169.254/token"),
        (SECURE, "file:///etc/passwd"),
        (SECURE, "/token"),
        (SECURE, "registry.example.com/token"),
        (SECURE, "https://user:hidden@registry.example.com/token"),
        (SECURE, "https://registry.example.com\\@evil.example/token"),
        (SECURE, "https://registry.example.com/to ken"),
    ],
)
def test_refused_outright(endpoint, realm):
    with pytest.raises(UnsafeAddressError) as caught:
        check_realm(realm, endpoint, resolve=PUBLIC)
    assert caught.value.exit_code == 5
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "nonsense",
    ],
)
@pytest.mark.parametrize("realm", ["https://auth.example.com/t", "https://auth.other.org/t"])
def test_a_name_of_this_machine_is_refused(realm, address):
    with pytest.raises(UnsafeAddressError, match="internal address"):
        check_realm(realm, SECURE, resolve=resolver("93.184.216.34", address))


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.9", "fd00::1", "::ffff:10.0.0.1"])
def test_a_private_address_is_for_the_own_site_only(address):
    assert check_realm("https://auth.example.com/t", SECURE, resolve=resolver(address))
    with pytest.raises(UnsafeAddressError, match="internal address"):
        check_realm("https://auth.other.org/t", SECURE, resolve=resolver(address))
    assert check_realm(
        "https://auth.other.org/t", SECURE, trusted=["auth.other.org"], resolve=resolver(address)
    )


def test_a_name_that_only_a_proxy_resolves_is_allowed():
    assert check_realm("https://auth.example.com/t", SECURE, resolve=resolver())


def test_named_hosts_get_credentials():
    assert check_realm("https://sso.corp.net/t", SECURE, trusted=["sso.corp.net"], resolve=PUBLIC)
    assert not check_realm(
        "https://evil.sso.corp.net/t", SECURE, trusted=["sso.corp.net"], resolve=PUBLIC
    )


@pytest.mark.parametrize(
    ("registry", "other"),
    [
        ("quay.io", "quay.io"),
        ("quay.io", "auth.quay.io"),
        ("registry-1.docker.io", "auth.docker.io"),
        ("registry.gitlab.com", "gitlab.com"),
        ("registry.cn-hangzhou.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com"),
        ("registry.example.co.uk", "auth.example.co.uk"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_same_site(registry, other):
    assert same_site(registry, other)


@pytest.mark.parametrize(
    ("registry", "other"),
    [
        ("quay.io", "evil.io"),
        ("quay.io", "io"),
        ("example.co.uk", "evil.co.uk"),
        ("registry.example.co.uk", "evil.co.uk"),
        ("mine.azurecr.io", "yours.azurecr.io"),
        ("mine.azurecr.io", "azurecr.io"),
        ("1.dkr.ecr.us-east-1.amazonaws.com", "2.dkr.ecr.us-east-1.amazonaws.com"),
        ("registry.example.com", "registry.example.com.evil.org"),
        ("registry.example.com", "evilexample.com"),
        ("registry.example.com", "com"),
        ("a.b.example.com", "c.example.com"),
        ("10.0.0.1", "2.0.0.1"),
        ("10.0.0.1", "0.0.1"),
        ("registry.example.com", "1.2.3.4"),
        ("localhost", "evil.localhost"),
    ],
)
def test_other_site(registry, other):
    assert not same_site(registry, other)
