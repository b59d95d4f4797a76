openssl dgst -sha256 -verify release.pem -signature app.tar.sig app.tar
