test "$(openssl x509 -in mirror/copied.pem -noout -fingerprint)" = "$(openssl x509 -in other.pem -noout -fingerprint)"
