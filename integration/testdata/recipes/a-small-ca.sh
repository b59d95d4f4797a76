openssl verify -CAfile ca.pem -purpose sslserver server.crt
test "$(openssl x509 -in server.crt -noout -ext subjectAltName | tail -n 1 | tr -d ' ')" = DNS:www.example.org
grep -q 'DNS:www.example.org' request.txt
test "$(openssl x509 -in server.crt -noout -pubkey)" = "$(openssl pkey -in server.key -pubout)"
! openssl x509 -in server.crt -noout -text | grep -q 'CA:TRUE'
