[ "$(curl -sS --engine pkcs11 --key-type ENG --key "$K" --cert client.pem --cacert server.pem https://localhost:$PORT/)" = 'you are client' ]
# Without the key there is no connection.
! curl -sS --cacert server.pem https://localhost:$PORT/
