# A request has the public half of its own key, of an RSA or an EC pair, though no
# identifier tells the pairs apart.
echo 1234abcd | p11fs login swtok
for name in one two; do
	pkcs11-tool --module $M --login --pin 1234abcd --keypairgen --key-type EC:prime256v1 --label $name
done
for name in one two mail-old mail-new; do
	openssl req -new -engine pkcs11 -keyform engine -key "pkcs11:token=demo;object=$name;type=private;pin-value=1234abcd" -subj /CN=$name -out $name.csr
	openssl req -in $name.csr -noout -verify
	openssl req -in $name.csr -noout -pubkey | cmp - $O/$name.pub/public.pem
done
openssl x509 -in mail.pem -noout -pubkey > mail.pub
openssl dgst -sha256 -verify mail.pub -signature sig msg
[ "$(openssl cms -verify -CAfile mail.pem -in signed.cms | tr -d '\r')" = 'attack at dawn' ]
[ "$(openssl cms -decrypt -engine pkcs11 -keyform engine -inkey "$K" -recip mail.pem -in encrypted.cms | tr -d '\r')" = 'attack at dawn' ]
openssl dgst -sha256 -sigopt rsa_padding_mode:pss -engine pkcs11 -keyform engine -sign "$K" -out sig.pss msg
openssl dgst -sha256 -sigopt rsa_padding_mode:pss -verify mail.pub -signature sig.pss msg
echo tampered >> msg
! openssl dgst -sha256 -verify mail.pub -signature sig msg
