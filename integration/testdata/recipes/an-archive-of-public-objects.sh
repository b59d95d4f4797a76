tar xf certs.tar
test "$(openssl x509 -in archived.pem -noout -fingerprint)" = "$(openssl x509 -in leaf.pem -noout -fingerprint)"
