# Every command of pkcs11-tool that applies, on a token that nobody else uses.
# It is left with the PIN 1234 and the label demo.
tool() { pkcs11-tool --module $M "$@"; }
user() { tool --login --pin 1234 "$@"; }
offers() { tool --list-mechanisms | grep -q "^  $1,"; }
echo 'attack at dawn' > msg
openssl dgst -sha256 -binary msg > hash

# The token: its PINs, of which every change is tried.
tool --show-info | grep -q 'Manufacturer *p11fs'
tool --list-slots
tool --init-token --so-pin 87654321 --label other
tool --init-token --so-pin 87654321 --label demo
tool --list-token-slots | grep -q 'token label *: demo'
tool --login --login-type so --so-pin 87654321 --init-pin --pin 12345678
tool --login --pin 12345678 --change-pin --new-pin 87651234
! tool --login --pin 12345678 --list-objects
tool --login --login-type so --so-pin 87654321 --change-pin --new-pin 76543210
tool --login --login-type so --so-pin 76543210 --init-pin --new-pin 1234
# The SO PIN that every new token has cannot be set again.
! tool --login --login-type so --so-pin 76543210 --change-pin --new-pin 87654321
user --list-objects
! tool --login --pin 4321 --list-objects

# Keys of every kind, and what they do. (OpenSC 0.23 cannot write a P-384 key out.)
user --keypairgen --key-type rsa:2048 --id 01 --label rsa
user --keypairgen --key-type EC:secp521r1 --id 02 --label ec --usage-sign
user --keygen --key-type AES:32 --id 03 --label aes
user --keygen --key-type GENERIC:32 --id 04 --label generic
for id in 01 02; do tool --read-object --type pubkey --id $id -o $id.der; done
for m in SHA1-RSA-PKCS SHA256-RSA-PKCS SHA384-RSA-PKCS SHA512-RSA-PKCS; do
	user --sign --mechanism $m --id 01 -i msg -o sig
	user --verify --mechanism $m --id 01 -i msg --signature-file sig | grep -q 'Signature is valid'
	h=${m%%-*}
	openssl dgst -$h -verify 01.der -keyform DER -signature sig msg
done
user --sign --mechanism RSA-PKCS-PSS --hash-algorithm SHA256 --mgf MGF1-SHA256 --salt-len 32 --id 01 -i hash -o sig
openssl dgst -sha256 -sigopt rsa_padding_mode:pss -verify 01.der -keyform DER -signature sig msg
user --sign --mechanism ECDSA --id 02 --signature-format openssl -i hash -o sig
openssl dgst -sha256 -verify 02.der -keyform DER -signature sig msg
user --sign --mechanism ECDSA --id 02 -i hash -o sig
user --verify --mechanism ECDSA --id 02 -i hash --signature-file sig | grep -q 'Signature is valid'
for m in ECDSA-SHA1 ECDSA-SHA256 ECDSA-SHA384 ECDSA-SHA512; do
	offers $m || continue
	user --sign --mechanism $m --id 02 --signature-format openssl -i msg -o sig
	openssl dgst -${m#*-} -verify 02.der -keyform DER -signature sig msg
done
openssl pkeyutl -encrypt -pubin -inkey 01.der -keyform DER -in hash -out secret
user --decrypt --mechanism RSA-PKCS --id 01 -i secret -o plain
cmp plain hash
openssl pkeyutl -encrypt -pubin -inkey 01.der -keyform DER -in hash -out secret \
	-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
user --decrypt --mechanism RSA-PKCS-OAEP --hash-algorithm SHA256 --id 01 -i secret -o plain
cmp plain hash
user --encrypt --mechanism AES-ECB --id 03 -i hash -o secret
user --decrypt --mechanism AES-ECB --id 03 -i secret -o plain
cmp plain hash
for m in AES-CBC AES-CBC-PAD; do
	offers $m || continue
	user --encrypt --mechanism $m --iv 000102030405060708090a0b0c0d0e0f --id 03 -i hash -o secret
	user --decrypt --mechanism $m --iv 000102030405060708090a0b0c0d0e0f --id 03 -i secret -o plain
	cmp plain hash
done
if offers ECDH1-DERIVE; then
	user --keypairgen --key-type EC:prime256v1 --id 05 --label dh --usage-derive
	openssl ecparam -name prime256v1 -genkey -noout -out peer.key
	openssl ec -in peer.key -pubout -outform DER -out peer.der
	tool --read-object --type pubkey --id 05 -o 05.der
	openssl ec -pubin -inform DER -in 05.der -out 05.pem
	user --derive --mechanism ECDH1-DERIVE --id 05 -i peer.der -o shared
	openssl pkeyutl -derive -inkey peer.key -peerkey 05.pem -out shared.peer
	cmp shared shared.peer
fi
if offers EDDSA; then
	user --keypairgen --key-type EC:edwards25519 --id 09 --label ed --usage-sign
	tool --read-object --type pubkey --id 09 -o 09.pub
	user --sign --mechanism EDDSA --id 09 -i msg -o sig
	openssl pkeyutl -verify -rawin -pubin -inkey 09.pub -in msg -sigfile sig
	user --verify --mechanism EDDSA --id 09 -i msg --signature-file sig | grep -q 'Signature is valid'
	user --delete-object --type privkey --id 09
	user --delete-object --type pubkey --id 09
fi
tool --hash --mechanism SHA256 -i msg -o hash.token
cmp hash hash.token
tool --generate-random 33 -o random
[ "$(wc -c < random)" = 33 ]

# Objects written, read, named, changed and destroyed.
openssl req -x509 -newkey rsa:2048 -nodes -keyout own.key -out own.pem -subj /CN=own -days 30
openssl x509 -in own.pem -outform DER -out own.der
openssl rsa -in own.key -outform DER -out key.der
openssl rsa -in own.key -pubout -outform DER -out pub.der
user --write-object own.der --type cert --id 06 --label own
user --write-object key.der --type privkey --id 06 --label own --usage-sign --usage-decrypt
user --write-object pub.der --type pubkey --id 06 --label own
user --write-object msg --type data --label note --application-label p11fs
user --write-object msg --type data --label secret-note --private
tool --read-object --type cert --id 06 -o read && cmp read own.der
tool --read-object --type pubkey --id 06 -o read && cmp read pub.der
tool --read-object --type data --label note -o read && cmp read msg
! tool --read-object --type data --label secret-note -o read
user --read-object --type data --label secret-note -o read && cmp read msg
user --sign --mechanism SHA256-RSA-PKCS --id 06 -i msg -o sig
openssl dgst -sha256 -verify pub.der -keyform DER -signature sig msg
head -c 32 hash > value
user --write-object value --type secrkey --key-type AES:32 --id 07 --label written --extractable
user --read-object --type secrkey --id 07 -o read && cmp read value
user --set-id 08 --type privkey --id 06
! user --sign --mechanism SHA256-RSA-PKCS --id 06 -i msg -o sig
user --sign --mechanism SHA256-RSA-PKCS --id 08 -i msg -o sig
! tool --list-objects | grep -q 'Private Key\|secret-note'
user --list-objects | tee objects
grep -q 'Private Key Object; RSA' objects
grep -q 'Secret Key Object; AES' objects
! user --read-object --type privkey --id 01 -o read

user --test
user --test-threads IIGLGL --test-threads IIGLGL

for o in privkey:01 pubkey:01 privkey:02 pubkey:02 secrkey:03 secrkey:04 privkey:08 pubkey:06 cert:06 secrkey:07; do
	user --delete-object --type ${o%:*} --id ${o#*:}
done
! offers ECDH1-DERIVE || { user --delete-object --type privkey --id 05; user --delete-object --type pubkey --id 05; }
user --delete-object --type data --label note
user --delete-object --type data --label secret-note
[ -z "$(user --list-objects 2> /dev/null)" ]
