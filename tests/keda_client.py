"""KEDA's client: stubs that protoc makes of KEDA's own interface, and TLS certificates to try them with."""

from __future__ import annotations

import datetime as dt
import importlib
import ipaddress
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

PROTO = Path(__file__).parent / "data" / "externalscaler.proto"


@dataclass(frozen=True)
class Stubs:
    """The generated modules, and what they describe."""

    messages: Any
    services: Any
    descriptor: Any


def made(folder: Path) -> Stubs:
    """The stubs, compiled into a folder."""
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    out = [f"--python_out={folder}", f"--grpc_python_out={folder}", f"--descriptor_set_out={folder / 'set'}"]
    assert protoc.main(["protoc", f"-I{PROTO.parent}", *out, str(PROTO)]) == 0
    sys.path.insert(0, str(folder))
    try:
        messages, services = (importlib.import_module(f"{PROTO.stem}_{name}") for name in ("pb2", "pb2_grpc"))
    finally:
        sys.path.remove(str(folder))
    (descriptor,) = descriptor_pb2.FileDescriptorSet.FromString((folder / "set").read_bytes()).file
    return Stubs(messages, services, descriptor)


class Keda:
    """Asks as KEDA does for one ScaledObject."""

    def __init__(self, stubs: Stubs, channel: Any, target: str = "shop/web", namespace: str = "shop") -> None:
        self._messages, self.scaler = stubs.messages, stubs.services.ExternalScalerStub(channel)
        metadata = {"scalerAddress": "here:9465", "target": target} if target else {"scalerAddress": "here:9465"}
        self.reference = self._messages.ScaledObjectRef(name="web", namespace=namespace, scalerMetadata=metadata)

    def spec(self) -> Any:
        return self.scaler.GetMetricSpec(self.reference, timeout=5)

    def value(self, metric: str = "desired-replicas") -> tuple[int, float]:
        request = self._messages.GetMetricsRequest(scaledObjectRef=self.reference, metricName=metric)
        (found,) = self.scaler.GetMetrics(request, timeout=5).metricValues
        assert found.metricName == metric
        return found.metricValue, found.metricValueFloat

    def refused(self, metric: str = "desired-replicas") -> tuple[str, str]:
        """Code and details of an answer that must be an error."""
        try:
            found = self.value(metric)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        raise AssertionError(f"{found} and no error")


@contextmanager
def asking(stubs: Stubs, url: str, **reference: str) -> Iterator[Keda]:
    with grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
        yield Keda(stubs, channel, **reference)


def certificate(folder: Path, name: str, signed_by: str = "", *, authority: bool = False, host: str = "localhost") -> None:
    """NAME.crt and NAME.key for a host and 127.0.0.1; of its own, or signed by another in the folder."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer, signing = subject, key
    if signed_by:
        issuer = x509.load_pem_x509_certificate((folder / f"{signed_by}.crt").read_bytes()).subject
        signing = serialization.load_pem_private_key((folder / f"{signed_by}.key").read_bytes(), None)  # type: ignore[assignment]
    names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = dt.datetime.now(dt.UTC)
    found = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signing, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for ending, data in (("crt", found.public_bytes(serialization.Encoding.PEM)), ("key", private)):
        path = folder / f"{name}.{ending}"
        # In one step, as a renewal comes.
        aside = path.with_suffix(f".{ending}.new")
        aside.write_bytes(data)
        aside.chmod(0o600)
        aside.rename(path)
