# Until both workers have answered, each by a connection and a signature of its own.
n=0
while [ "$(sort -u workers 2> /dev/null | wc -l)" -lt 2 ]; do
	n=$((n + 1))
	[ $n -lt 400 ]
	curl -sS --cacert server.pem https://localhost:$PORT/ >> workers
done
# Likewise after the workers are started anew.
kill -HUP $(cat nginx.pid)
n=0
until curl -sS --cacert server.pem https://localhost:$PORT/ > after && ! grep -qxF "$(cat after)" workers; do
	n=$((n + 1))
	[ $n -lt 100 ]
	sleep 0.1
done
