for f in part.?; do openssl dgst -sha384 -verify $O/many.pub/public.pem -signature $f.sig $f || openssl dgst -sha256 -verify $O/many.pub/public.pem -signature $f.sig $f; done
test "$(ls part.?.sig | wc -l)" = 9
