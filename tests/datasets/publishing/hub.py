"""A stand-in for the Hugging Face hub on localhost: what it is sent, it keeps and gives back."""

import hashlib
import json
import re
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_stand_in"
LARGE = (".h5", ".hdf5", ".parquet", ".png")


@dataclass
class Repository:
    private: bool
    commits: dict = field(default_factory=dict)  # sha -> {path: bytes}, in order
    tags: dict = field(default_factory=dict)

    def commit(self, files):
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha] = files
        return sha

    @property
    def head(self):
        return list(self.commits)[-1]

    def resolve(self, revision):
        sha = self.head if revision == "main" else self.tags.get(revision, revision)
        return sha if sha in self.commits else None


def git_hash(content):
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class Hub(ThreadingHTTPServer):
    """Repositories by name; `requests` lists what was asked.

    It answers 503 to what `broken` matches, and to every commit after the first `commits_allowed`.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.large, self.requests = {}, {}, []
        self.broken, self.commits_allowed = None, None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def add(self, name, *, private=True, files=None, tag=None):
        self.repositories[name] = repository = Repository(private)
        sha = repository.commit({".gitattributes": b"", **(files or {})})
        if tag:
            repository.tags[tag] = sha
        return repository

    @property
    def changes(self):
        return [entry for entry in self.requests if not entry.startswith(("GET ", "HEAD "))]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, content=None, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        hub, url = self.server, urlsplit(self.path)
        path = unquote(url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append(f"{self.command} {path}")
        if hub.broken and re.search(hub.broken, hub.requests[-1]):
            return self.reply({"error": "try later"}, 503)
        if stored := re.fullmatch(r"/large/(\w+)", path):
            assert "Authorization" not in self.headers  # it is another server's address
            assert hashlib.sha256(body).hexdigest() == stored[1]
            hub.large[stored[1]] = body
            return self.reply({})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            message = "Invalid credentials in Authorization header"
            return self.reply({"error": message}, 401, X_Error_Message=message)
        if path == "/api/whoami-v2":
            return self.reply({"name": "alice", "type": "user", "orgs": []})
        if path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if path == "/api/datasets":
            author = parse_qs(url.query)["author"][0]
            found = [name for name in hub.repositories if name.startswith(f"{author}/")]
            return self.reply([{"id": name} for name in found])
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        match = re.match(r"(?:/api)?/datasets/([\w.-]+/[\w-]+)(?:\.git)?/?(\w*)/?(.*)", path)
        if match is None or match[1] not in hub.repositories:
            return self.reply({"error": "not found"}, 404, X_Error_Code="RepoNotFound")
        repository, verb, rest = hub.repositories[match[1]], match[2], match[3]
        return getattr(self, f"do_{verb or 'revision'}")(match[1], repository, rest, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, wanted):
        owner, name = wanted["organization"], wanted["name"]
        if owner != "alice":
            return self.reply({"error": "no right to this namespace"}, 403)
        answer = {"url": f"{self.server.url}/datasets/{owner}/{name}"}
        if f"{owner}/{name}" in self.server.repositories:
            return self.reply(answer | {"error": "it exists"}, 409)
        self.server.add(f"{owner}/{name}", private=wanted.get("visibility") == "private")
        return self.reply(answer)

    def do_revision(self, name, repository, revision, _):
        sha = repository.resolve(revision or "main")
        if sha is None:
            return self.reply({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
        return self.reply({"id": name, "sha": sha, "private": repository.private})

    def do_refs(self, name, repository, *_):
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha}
            for tag, sha in repository.tags.items()
        ]
        return self.reply({"branches": [], "converts": [], "tags": tags})

    def do_tree(self, name, repository, revision, _):
        entries = []
        for path, content in repository.commits[repository.resolve(revision)].items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            if path.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
                entry["oid"] = "0" * 40
            entries.append(entry)
        return self.reply(entries)

    def do_resolve(self, name, repository, rest, _):
        revision, _, path = rest.partition("/")
        sha = repository.resolve(revision)
        content = repository.commits[sha].get(path)
        if content is None:
            return self.reply({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        return self.reply(content, X_Repo_Commit=sha, ETag=f'"{git_hash(content)}"')

    def do_preupload(self, name, repository, revision, body):
        files = repository.commits[repository.resolve(revision)]
        answer = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": git_hash(files[file["path"]]) if file["path"] in files else None,
            }
            for file in json.loads(body)["files"]
        ]
        return self.reply({"files": answer})

    def do_info(self, name, repository, rest, body):  # Git LFS: which files to send, and where
        objects = json.loads(body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.server.large:
                href = f"{self.server.url}/large/{entry['oid']}"
                entry["actions"] = {"upload": {"href": href}}
        return self.reply({"transfer": "basic", "objects": objects})

    def do_commit(self, name, repository, revision, body):
        lines = [json.loads(line) for line in body.splitlines()]
        if self.server.commits_allowed is not None:
            self.server.commits_allowed -= 1
            if self.server.commits_allowed < 0:
                return self.reply({"error": "try later"}, 503)
        if lines[0]["value"].get("parentCommit", repository.head) != repository.head:
            return self.reply({"error": "the branch has moved"}, 412)
        files = dict(repository.commits[repository.head])
        for key, value in ((line["key"], line["value"]) for line in lines[1:]):
            if key == "file":
                files[value["path"]] = b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            else:
                assert key == "deletedFile"
                del files[value["path"]]
        sha = repository.commit(files)
        return self.reply(
            {"commitUrl": f"{self.server.url}/datasets/{name}/commit/{sha}", "commitOid": sha}
        )

    def do_tag(self, name, repository, revision, body):
        tag = json.loads(body)["tag"]
        if tag in repository.tags:
            return self.reply({"error": "the tag exists"}, 409)
        repository.tags[tag] = repository.resolve(revision)
        return self.reply({})
