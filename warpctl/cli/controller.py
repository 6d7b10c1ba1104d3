"""`warpctl controller`: drives the WarpRuns of a cluster; in a Deployment, or outside of the cluster with a kubeconfig."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from warpctl.spec.controller_config import ControllerConfig


def controller(
    config: Annotated[
        str,
        typer.Option(
            "--config", metavar="FILE", help="The controller's configuration; without one nothing is allowed."
        ),
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Only the runs of this namespace; else all.")
    ] = "",
    lease_namespace: Annotated[
        str, typer.Option("--lease-namespace", metavar="NAME", help="Where the Lease is; else its own namespace.")
    ] = "",
    kubeconfig: Annotated[
        str, typer.Option("--kubeconfig", metavar="FILE", help="Instead of $KUBECONFIG or the pod's identity.")
    ] = "",
    *,
    context: Annotated[str, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig.")] = "",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of /healthz, /readyz and /metrics; 0 takes a free one.")
    ] = 8080,
) -> None:
    """Drive the WarpRuns of a cluster until SIGTERM. Several may run: one leads, the others wait for its Lease."""
    import os
    import signal
    import socket
    import sys
    import uuid

    from stamina.instrumentation import set_on_retry_hooks

    from warpctl import __version__
    from warpctl.controller.main import Controller, Options
    from warpctl.controller.probes import serve
    from warpctl.kube.connection import connect
    from warpctl.telemetry.log import logger

    settings = load_config(config)
    connection = connect(
        os.environ,
        kubeconfig=kubeconfig,
        context=context,
        connections=settings.workers + 4,
        agent=f"warpctl-controller/{__version__}",
    )
    set_on_retry_hooks(())  # requests are counted in the metrics; its own lines are not those of our log
    log = logger(sys.stderr)
    options = Options(
        identity=f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}",
        lease_namespace=lease_namespace or namespace or connection.namespace,
        namespace=namespace,
    )
    program = Controller(connection.api, settings, options, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: program.stop.set())
    server = serve(
        port, {"/healthz": program.is_healthy, "/readyz": program.is_ready, "/metrics": program.metrics_text}
    )
    log.info("started", version=__version__, identity=options.identity, port=server.server_address[1])
    is_good = program.run()
    server.shutdown()
    raise typer.Exit(0 if is_good else 1)


def load_config(path: str) -> ControllerConfig:
    """The configuration in a YAML file, the default one without; UserError when it cannot be used."""
    from pathlib import Path

    from pydantic import ValidationError
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from warpctl.errors import UserError
    from warpctl.spec.controller_config import ControllerConfig

    if not path:
        return ControllerConfig()
    try:
        body = YAML(typ="safe").load(Path(path).read_text())
        return ControllerConfig.model_validate(body or {})
    except (OSError, YAMLError) as error:
        raise UserError(f"cannot read the configuration {path}: {error}", hint="see docs/operations.md") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}", hint="see docs/operations.md") from error
