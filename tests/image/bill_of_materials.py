"""What an image consists of, as a CycloneDX document: Debian's packages and Python's."""

from __future__ import annotations

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from tests.image.engine import Docker

DEBIAN = ("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n")
PYTHON = """
from importlib.metadata import distributions
for found in distributions():
    print(found.name, found.version)
"""


def bill_of_materials(docker: Docker, image: str) -> tuple[str, int]:
    """The document, and how many components it has."""
    bom = Bom()
    bom.metadata.component = Component(name="openguild-server", type=ComponentType.CONTAINER, bom_ref="image")
    for name, version, architecture in _lines(docker, image, *DEBIAN):
        address = PackageURL("deb", "debian", name, version, {"arch": architecture})
        bom.components.add(_library(name, version, address))
    for name, version in _lines(docker, image, "/app/bin/python", "-I", "-c", PYTHON):
        bom.components.add(_library(name, version, PackageURL("pypi", None, name.lower(), version)))
    bom.register_dependency(bom.metadata.component, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=2), len(bom.components)


def _library(name: str, version: str, address: PackageURL) -> Component:
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, purl=address, bom_ref=address.to_string()
    )  # fmt: skip


def _lines(docker: Docker, image: str, program: str, *arguments: str) -> list[list[str]]:
    said = docker("run", "--rm", "--network", "none", "--entrypoint", program, image, *arguments)
    return [line.split() for line in said.splitlines()]
