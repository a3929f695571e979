"""Writes what is made from the models: the chart's CRDs and the pages that list every field.

`python -m heliostat_crds.generate [ROOT]`, ROOT being the repository (default: here).
"""

import sys
from pathlib import Path

import yaml

from heliostat_crds.definitions import Definition, peer_definition, pool_definition
from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.reference import filled_page
from heliostat_crds.region_peer import RegionPeer

_KEEP = """\
  {{- if .Values.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""
_HEADER = "# Written by `make crds` from the models in crds/; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Writes a value that stands in two places twice, rather than as an anchor."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def generated_files(root: Path) -> dict[Path, str]:
    """Give the text of every file that is made from the models, by its path."""
    templates = root / "charts" / "heliostat-crds" / "templates"
    texts = {
        templates / "inferencepools.yaml": chart_template(pool_definition()),
        templates / "regionpeers.yaml": chart_template(peer_definition()),
    }
    for name, model in (("inference-pool", InferencePool), ("region-peer", RegionPeer)):
        page = root / "docs" / f"{name}.md"
        texts[page] = filled_page(page.read_text(), model)
    return texts


def chart_template(definition: Definition) -> str:
    """Write a definition as a template of the chart; only its being kept depends on a value."""
    body = yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    name = f"  name: {definition['metadata']['name']}\n"
    return _HEADER + body.replace(name, name + _KEEP, 1)


def main() -> None:
    """Write the files that differ from what the models say."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    for path, text in generated_files(root).items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
