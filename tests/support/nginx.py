"""nginx in front of a registry: faults, caps and detours that a real server can express.

A configuration is made of small pieces of nginx's own language, so that a test reads as what the
client meets. Faults that nginx cannot express are the fault registry's.

    nginx = start_nginx(proxy(registry, limit_rate("1m"), ignore_ranges()))
    nginx = start_nginx(proxy(registry), redirect_blobs(to="http://127.0.0.1:8001"))
    nginx = start_nginx(proxy(registry, answer(503, when="$bad")), http=some_of("$bad", 30))
"""

from pathlib import Path
from typing import Self

from tests.support import programs
from tests.support.certificates import PrivateCA
from tests.support.servers import Server, accepts_connections, free_port

_CONFIG = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log info;
worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
  log_format lines '$status $request_method $request_uri range=$http_range sent=$body_bytes_sent';
  access_log {directory}/access.log lines;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  default_type application/octet-stream;
  client_max_body_size 0;
  {http}
  server {{
    listen 127.0.0.1:{port}{ssl};
    {tls}
    {server}
  }}
}}
"""


class Nginx(Server):
    """One nginx on a loopback port."""

    def __init__(self, directory: Path, *server: str, http: str = "", tls: PrivateCA | None = None):
        """``server`` goes into the server block, ``http`` before it (maps and zones)."""
        self._port = free_port()
        self._scheme = "https" if tls else "http"
        self._access_log = directory / "access.log"
        certificate = ""
        if tls:
            file, key = tls.issue(directory.name)
            certificate = f"ssl_certificate {file};\n    ssl_certificate_key {key};"
        config = directory / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                directory=directory,
                http=http,
                port=self._port,
                ssl=" ssl" if tls else "",
                tls=certificate,
                server="\n    ".join(server),
            )
        )
        log = directory / "nginx.log"
        super().__init__(
            "nginx", programs.command("nginx", "-p", directory, "-c", config, "-e", log), log=log
        )

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, as in a reference."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or https."""
        return f"{self._scheme}://{self.host}"

    def start(self) -> None:
        """Start it, or start it again on its port."""
        super().start(ready=lambda: accepts_connections(self._port))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def requests(self) -> list[str]:
        """Return a line for each finished request: ``206 GET /v2/… range=bytes=0-1 sent=2``."""
        return self._access_log.read_text().splitlines()


def proxy(to, *directives: str, path: str = "/") -> str:
    """Pass requests below ``path`` on to a registry or server, under these directives."""
    return f"""location {path} {{
      proxy_pass {to.url};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_read_timeout 60s;
      {" ".join(directives)}
    }}"""


def limit_rate(rate: str, *, after: str = "0") -> str:
    """Cap each connection at ``rate`` bytes a second, as "500k" or "2m", after the first bytes."""
    return f"limit_rate_after {after}; limit_rate {rate};"


def trickle(*, after: str) -> str:
    """Send this much of a body, then a byte a second for ever: a read timeout never strikes.

    For a connection on which nothing at all comes any more, freeze the server: ``pause()``.
    """
    return limit_rate("1", after=after)


def ignore_ranges() -> str:
    """Answer 200 with the whole body to a request for a range, and do not offer ranges."""
    return 'proxy_set_header Range ""; proxy_set_header If-Range ""; proxy_hide_header Accept-Ranges; max_ranges 0;'


def some_of(variable: str, percent: float) -> str:
    """Set ``variable`` to 1 for this share of all requests, chosen at random, else to 0. For http."""
    return f'split_clients "$request_id" {variable} {{ {percent}% 1; * 0; }}'


def alternate_seconds(variable: str) -> str:
    """Set ``variable`` to 1 in every second second, else to 0: faults in bursts. For http."""
    return f'map $msec {variable} {{ default 0; "~[02468]\\." 1; }}'


def answer(status: int, *, when: str) -> str:
    """Answer with an error status when a variable is 1; 444 drops the connection instead."""
    return f"if ({when}) {{ return {status}; }}"


def rate_zone(zone: str, rate: str) -> str:
    """Declare a zone of, say, "5r/s" over all clients. For http."""
    return f"limit_req_zone $server_port zone={zone}:64k rate={rate};"


def refuse_over(zone: str, *, burst: int = 1, status: int = 429) -> str:
    """Answer this status to the requests that exceed a zone's rate."""
    return f"limit_req zone={zone} burst={burst} nodelay; limit_req_status {status};"


def retry_after(seconds: int, *, status: int = 429) -> str:
    """Send ``Retry-After`` with every answer of this status. For http."""
    return f"""map $status $retry_after {{ {status} {seconds}; default ""; }}
  add_header Retry-After $retry_after always;"""


def refuse_method(method: str, status: int = 405) -> str:
    """Answer this status to one HTTP method."""
    return f"if ($request_method = {method}) {{ return {status}; }}"


def redirect_blobs(*, to: str, status: int = 307) -> str:
    """Redirect downloads of blobs to another host, keeping path and query."""
    return f"""location ~ ^/v2/.+/blobs/sha256 {{
      return {status} {to}$request_uri;
    }}"""
