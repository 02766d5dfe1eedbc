"""Write a bill of materials (CycloneDX 1.6, JSON) for every engine's environment and for the collection.

``python sbom.py DIRECTORY``. Each is validated against the schema of CycloneDX before it is written.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

import yaml
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from pins import ROOT, Pin, environments, stacks

#: What distinguishes the serial numbers of these bills from those of others.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "xpu.fleet")


def main() -> int:
    """Write the bills; return 0, or 1 where one is not as the schema says."""
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    version = str(yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"])
    bills = {
        name: bill(f"xpu.fleet {name}", version, map(python_package, pins)) for name, pins in environments().items()
    }
    bills["collection"] = bill("xpu.fleet", version, collection(list(bills), version))
    for name, made in bills.items():
        text = make_outputter(made, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
        problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
        if problem:
            print(f"{name}: {problem}", file=sys.stderr)
            return 1
        (place / f"{name}.cdx.json").write_text(f"{text}\n", encoding="utf-8")
    return 0


def bill(name: str, version: str, components: Iterable[Component]) -> Bom:
    """Return a bill for one thing; from the same pins it is the same, but for its time (SOURCE_DATE_EPOCH)."""
    made = Bom(components=components)
    made.metadata.component = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name)
    content = "\n".join(
        sorted(f"{part.purl} {sorted(item.content for item in part.hashes)}" for part in made.components)
    )
    made.serial_number = uuid.uuid5(_NAMESPACE, f"{name} {version}\n{content}")
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    made.metadata.timestamp = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    made.register_dependency(made.metadata.component, made.components)
    return made


def python_package(pin: Pin) -> Component:
    """Return a package of PyPI, or of the vendor's index, with the hashes of the wheels that pip accepts."""
    purl = PackageURL("pypi", None, pin.name, pin.version)
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in pin.sha256]
    return Component(
        name=pin.name, version=pin.version, type=ComponentType.LIBRARY, purl=purl, hashes=hashes, bom_ref=str(purl)
    )


def collection(names: Iterable[str], version: str) -> list[Component]:
    """Return what the collection brings to nodes: the environments, and the packages and installers of the stacks."""
    found = {name: Component(name=f"xpu.fleet {name}", version=version, bom_ref=f"xpu.fleet {name}") for name in names}
    for stack in stacks().values():
        variants = [{"kernel": {}, "driver": {}, "oneapi": {}, **one["set"]} for one in stack.get("variants", [])]
        packages = [item for one in (stack, *variants) for item in debian_packages(one).items()]
        for name, pinned in packages:
            purl = PackageURL("deb", "ubuntu", name, pinned)
            found[str(purl)] = Component(name=name, version=pinned, purl=purl, bom_ref=str(purl))
        installer = stack["python"].get("miniconda")
        if installer:
            file = installer["url"].rpartition("/")[2]
            digest = HashType(alg=HashAlgorithm.SHA_256, content=installer["sha256"])
            purl = PackageURL("generic", None, file, qualifiers={"download_url": installer["url"]})
            found[file] = Component(name=file, type=ComponentType.FILE, purl=purl, hashes=[digest], bom_ref=file)
    return list(found.values())


def debian_packages(stack: dict[str, dict[str, object]]) -> dict[str, str]:
    """Return the Debian packages of a stack whose versions it pins."""
    driver, oneapi = dict(stack["driver"]), dict(stack["oneapi"])
    groups = [
        dict(stack["kernel"]).get("packages"),
        driver.get("packages"),
        driver.get("firmware"),
        oneapi.get("required"),
    ]
    modules = driver.get("dkms") or []
    groups += [{item["package"]: item["version"] for item in modules if isinstance(modules, list)}]
    groups += list(dict(oneapi.get("components") or {}).values())
    return {name: version for group in groups if isinstance(group, dict) for name, version in group.items() if version}


if __name__ == "__main__":
    sys.exit(main())
