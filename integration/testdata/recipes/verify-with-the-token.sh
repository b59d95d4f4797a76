test "$(cat verdict)" = ok
openssl dgst -sha256 -verify $O/checked.pub/public.pem -signature app.tar.sig app.tar
