"""Stands in for kube-apiserver: TLS with the certificate it is given, the token of its file, and the API server double behind."""
import csv, socket, ssl, subprocess, sys, threading

if sys.argv[1:] == ["--version"]:
    print("Kubernetes v1.36.2")
    sys.exit()

flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
for name in ["service-account-key-file", "service-account-signing-key-file"]:
    assert "PRIVATE KEY" in open(flags[name]).read(), name
assert flags["etcd-servers"].startswith("http://127.0.0.1:")
token, user, _, groups = next(csv.reader(open(flags["token-auth-file"])))
assert groups == "system:masters"

DOUBLE = ("127.0.0.1", 18080)
range_ = flags["service-cluster-ip-range"]
double = ["APISERVER_DOUBLE", "--listen", "%s:%d" % DOUBLE, "--token", token, "--service-cidr", range_]
subprocess.Popen(["setpriv", "--pdeathsig", "KILL"] + double, stdout=subprocess.DEVNULL)


def copy(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(plain):
    try:
        client = context.wrap_socket(plain, server_side=True)
        server = socket.create_connection(DOUBLE)
    except OSError:
        plain.close()
        return
    threading.Thread(target=copy, args=(server, client), daemon=True).start()
    copy(client, server)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(flags["tls-cert-file"], flags["tls-private-key-file"])
listener = socket.create_server((flags["bind-address"], int(flags["secure-port"])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
