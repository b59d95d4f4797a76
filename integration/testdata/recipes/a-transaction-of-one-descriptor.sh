openssl dgst -sha512 -binary part.1 | cmp - part.1.sha512
