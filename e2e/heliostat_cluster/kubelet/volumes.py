"""A pod's volumes as folders of the machine, and where they appear in its containers."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from heliostat_cluster.kubelet.api import KubeletApi
from heliostat_cluster.kubelet.container import Mount
from heliostat_cluster.kubelet.environment import expand
from heliostat_cluster.kubelet.references import (
    ConfigError,
    PodFacts,
    fetch_data,
    field_value,
    resource_value,
)
from heliostat_kube.resource import CONFIG_MAPS, SECRETS, Json, Resource

_MEMORY = Path("/dev/shm")  # noqa: S108 - where memory is mounted
_DEFAULT_MODE = 0o644
_TOKEN_SECONDS = 3607
_Files = dict[str, tuple[bytes, int]]


class Volumes:
    """Makes one pod's volumes below a folder, and removes them.

    claims -- the folder whose folders play persistent volumes, for all pods
    """

    def __init__(self, api: KubeletApi, facts: PodFacts, folder: Path, claims: Path) -> None:
        self._api = api
        self._facts = facts
        self._folder = folder
        self._claims = claims
        self._memory = _MEMORY / f"heliostat-e2e-{facts.pod['metadata']['uid']}"
        self._paths: dict[str, Path] = {}

    async def make(self) -> None:
        """Make all volumes. Raises ConfigError where one refers to what does not exist."""
        for volume in self._facts.pod["spec"].get("volumes") or ():
            if volume["name"] not in self._paths:
                self._paths[volume["name"]] = await self._make_one(volume)

    def mounts(self, container: Json, variables: Mapping[str, str]) -> list[Mount]:
        """Return the container's mounts, outer ones first."""
        mounts = []
        for mount in container.get("volumeMounts") or ():
            source = self._paths[mount["name"]]
            part = expand(mount.get("subPathExpr") or "", variables) or mount.get("subPath")
            if part:
                source = source / part
                if not source.exists():
                    source.mkdir(parents=True)
                    self._share(source)
            read_only = bool(mount.get("readOnly"))
            mounts.append(Mount(str(source), mount["mountPath"], read_only))
        return sorted(mounts, key=lambda mount: mount.target.count("/"))

    def remove(self) -> None:
        """Remove what belongs to this pod alone."""
        shutil.rmtree(self._memory, ignore_errors=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _make_one(self, volume: Json) -> Path:
        name: str = volume["name"]
        match volume:
            case {"emptyDir": source}:
                base = self._memory if source.get("medium") == "Memory" else self._folder
                return self._make_folder(base / name)
            case {"hostPath": source}:
                return _host_path(source)
            case {"persistentVolumeClaim": source}:
                return self._make_folder(
                    self._claims / f"{self._facts.namespace}_{source['claimName']}"
                )
        files = await self._files(volume)
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for path, (content, mode) in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            self._own(target, mode)
        return folder

    async def _files(self, volume: Json) -> _Files:
        match volume:
            case {"configMap": source}:
                mode = source.get("defaultMode", _DEFAULT_MODE)
                return await self._data_files(CONFIG_MAPS, source["name"], source, mode)
            case {"secret": source}:
                mode = source.get("defaultMode", _DEFAULT_MODE)
                return await self._data_files(SECRETS, source["secretName"], source, mode)
            case {"downwardAPI": source}:
                return self._own_files(source, source.get("defaultMode", _DEFAULT_MODE))
            case {"projected": source}:
                mode = source.get("defaultMode", _DEFAULT_MODE)
                files: _Files = {}
                for part in source.get("sources") or ():
                    files |= await self._projected_files(part, mode)
                return files
        raise ConfigError(f"volume {volume['name']}: the e2e kubelet does not know its kind")

    async def _projected_files(self, part: Json, mode: int) -> _Files:
        match part:
            case {"serviceAccountToken": source}:
                return {source["path"]: (await self._token(source), self._token_mode())}
            case {"configMap": source}:
                return await self._data_files(CONFIG_MAPS, source["name"], source, mode)
            case {"secret": source}:
                return await self._data_files(SECRETS, source["name"], source, mode)
            case {"downwardAPI": source}:
                return self._own_files(source, mode)
        raise ConfigError(f"unknown projection: {', '.join(part)}")

    async def _token(self, source: Json) -> bytes:
        pod = self._facts.pod
        spec: Json = {
            "audiences": [source["audience"]] if source.get("audience") else [],
            "expirationSeconds": source.get("expirationSeconds", _TOKEN_SECONDS),
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            },
        }
        account = pod["spec"].get("serviceAccountName") or "default"
        return (await self._api.request_token(self._facts.namespace, account, spec)).encode()

    def _token_mode(self) -> int:
        """A token is for the pod's group, else for its one user, else for all."""
        if "fsGroup" in self._security():
            return 0o640
        return 0o600 if self._common_user() is not None else _DEFAULT_MODE

    async def _data_files(self, resource: Resource, name: str, source: Json, mode: int) -> _Files:
        optional = bool(source.get("optional"))
        data = await fetch_data(self._api, resource, self._facts.namespace, name, optional=optional)
        items = source.get("items")
        if items is None:
            return {key: (content, mode) for key, content in data.items()}
        absent = [item["key"] for item in items if item["key"] not in data]
        if absent and not optional:
            raise ConfigError(f"references non-existent config key: {absent[0]}")
        return {
            item["path"]: (data[item["key"]], item.get("mode") or mode)
            for item in items
            if item["key"] in data
        }

    def _own_files(self, source: Json, mode: int) -> _Files:
        files: _Files = {}
        for item in source.get("items") or ():
            if "fieldRef" in item:
                value = field_value(self._facts, item["fieldRef"]["fieldPath"])
            else:
                reference = item["resourceFieldRef"]
                value = resource_value(self._container(reference["containerName"]), reference)
            files[item["path"]] = (value.encode(), item.get("mode") or mode)
        return files

    def _container(self, name: str) -> Json:
        containers: Sequence[Json] = self._facts.pod["spec"]["containers"]
        return next((each for each in containers if each["name"] == name), {})

    def _make_folder(self, folder: Path) -> Path:
        if not folder.exists():
            folder.mkdir(parents=True)
            self._share(folder)
        return folder

    def _share(self, folder: Path) -> None:
        folder.chmod(0o777)
        if (group := self._security().get("fsGroup")) is not None:
            os.chown(folder, -1, group)
            folder.chmod(0o2777)

    def _own(self, path: Path, mode: int) -> None:
        """Give a file its mode; the pod's group may read it, as may the user of a token."""
        group = self._security().get("fsGroup")
        path.chmod(mode if group is None else mode | 0o440)
        if group is not None:
            os.chown(path, -1, group)
        elif mode == self._token_mode() == 0o600 and (user := self._common_user()) is not None:
            os.chown(path, user, -1)

    def _common_user(self) -> int | None:
        """Return the one user that all containers run as; None if the pod does not say."""
        general = self._security().get("runAsUser")
        containers = self._facts.pod["spec"]["containers"]
        users = {
            (each.get("securityContext") or {}).get("runAsUser", general) for each in containers
        }
        return users.pop() if len(users) == 1 else None

    def _security(self) -> Json:
        security: Json = self._facts.pod["spec"].get("securityContext") or {}
        return security


def _host_path(source: Json) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    if not path.exists():
        raise ConfigError(f"hostPath {path}: there is no such file or folder")
    return path
