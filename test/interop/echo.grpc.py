"""gRPC echo with the library of the gRPC project: `serve PORT`, or `call ADDRESS:PORT` (prints one line for each check)."""

import sys
from concurrent import futures

import grpc

SERVICE = "interop.Echo"


def serve(port: str) -> None:
    handlers = grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Unary": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
            "Stream": grpc.stream_stream_rpc_method_handler(lambda requests, _: (r[::-1] for r in requests)),
            "Refuse": grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
            ),
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handlers,))
    if server.add_insecure_port(f"[::]:{port}") == 0:
        sys.exit(f"port {port} is taken")
    server.start()
    server.wait_for_termination()


def call(target: str) -> None:
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 8 << 20)]
    with grpc.insecure_channel(target, options=options) as channel:
        unary = channel.unary_unary(f"/{SERVICE}/Unary")
        large = bytes(range(256)) * 4096 * 2
        assert unary(large, timeout=10) == large
        print("unary", len(large))
        stream = channel.stream_stream(f"/{SERVICE}/Stream")
        answers = list(stream((b"message %d" % i for i in range(1000)), timeout=10))
        assert answers == [(b"message %d" % i)[::-1] for i in range(1000)]
        print("stream", len(answers))
        try:
            channel.unary_unary(f"/{SERVICE}/Refuse")(b"", timeout=10)
        except grpc.RpcError as error:
            print("status", error.code().name, error.details())


{"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])
