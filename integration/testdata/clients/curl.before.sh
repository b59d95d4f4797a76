. ./engine.sh
# A server that asks for a certificate, and takes those of clients.pem.
openssl req -x509 -newkey rsa:2048 -nodes -keyout server.key -out server.pem -subj /CN=localhost \
	-addext subjectAltName=DNS:localhost -days 30 2> /dev/null
cp server.pem clients.pem
cat > server.py << 'END'
import http.server, os, ssl, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        subject = dict(x[0] for x in self.connection.getpeercert()["subject"])
        body = f"you are {subject['commonName']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(http.server.HTTPServer):
    # Read anew for each connection: the client's certificate is made later.
    def get_request(self):
        sock, addr = super().get_request()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="clients.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain("server.pem", "server.key")
        return context.wrap_socket(sock, server_side=True), addr

Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
END
python3 server.py $PORT 2> server.log &
SERVER=$!
trap 'cat server.log >&2; kill $SERVER' EXIT
n=0
until grep -q ":$(printf %04X $PORT) .* 0A " /proc/net/tcp; do n=$((n + 1)); [ $n -lt 100 ]; sleep 0.1; done
