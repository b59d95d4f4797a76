openssl x509 -in mail.pem -noout -pubkey > mail.pub
openssl dgst -sha256 -verify mail.pub -signature sig msg
[ "$(openssl cms -verify -CAfile mail.pem -in signed.cms | tr -d '\r')" = 'attack at dawn' ]
[ "$(openssl cms -decrypt -engine pkcs11 -keyform engine -inkey "$K" -recip mail.pem -in encrypted.cms | tr -d '\r')" = 'attack at dawn' ]
openssl dgst -sha256 -sigopt rsa_padding_mode:pss -engine pkcs11 -keyform engine -sign "$K" -out sig.pss msg
openssl dgst -sha256 -sigopt rsa_padding_mode:pss -verify mail.pub -signature sig.pss msg
echo tampered >> msg
! openssl dgst -sha256 -verify mail.pub -signature sig msg
