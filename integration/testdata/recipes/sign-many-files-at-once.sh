for f in part.?; do openssl dgst -sha256 -verify $O/crowd.pub/public.pem -signature $f.crowd.sig $f; done
test "$(ls part.?.crowd.sig | wc -l)" = 9
test "$(ls $T/sessions | grep -c crowd)" = 0
