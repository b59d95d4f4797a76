#!/bin/sh
# Makes testdata/files with the openssl (3.x) and ssh-keygen commands. The files
# are checked in and kept: run this in an empty directory to add to them.
# The pass phrase is "correct horse" unless the name says otherwise.
set -eu
P=correct\ horse
U='Pässwört 🔑'

openssl genrsa -out rsa.pem 2048 2>/dev/null
for c in prime256v1 secp224r1 secp384r1 secp521r1 secp256k1 brainpoolP256r1; do
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:$c -out $c.pem
done
for k in ed25519 ed448 x25519 x448; do openssl genpkey -algorithm $k -out $k.pem; done
for k in rsa prime256v1 secp224r1 secp384r1 secp521r1 secp256k1 brainpoolP256r1 ed25519 ed448 x25519 x448; do
	openssl pkcs8 -topk8 -nocrypt -in $k.pem -outform DER -out $k.p8.der
	openssl pkey -in $k.pem -pubout -out $k.pub.pem
done

# OpenSSL 3.5 and later. Without the parameter private keys hold the seed and the expanded key.
for k in ml-dsa-65 ml-kem-768; do openssl genpkey -algorithm $k -provparam $(echo $k | cut -d- -f1,2).output_formats=seed-only -out $k.pem; done
openssl genpkey -algorithm slh-dsa-sha2-128f -out slh-dsa-sha2-128f.pem
for k in ml-dsa-65 ml-kem-768 slh-dsa-sha2-128f; do openssl pkey -in $k.pem -pubout -out $k.pub.pem; done

# Plain forms.
openssl rsa -in rsa.pem -traditional -out rsa.pkcs1.pem 2>/dev/null
openssl rsa -in rsa.pem -traditional -outform DER -out rsa.pkcs1.der 2>/dev/null
openssl rsa -in rsa.pem -RSAPublicKey_out -out rsa.pkcs1.pub.pem 2>/dev/null
openssl rsa -in rsa.pem -RSAPublicKey_out -outform DER -out rsa.pkcs1.pub.der 2>/dev/null
openssl pkey -in rsa.pem -pubout -outform DER -out rsa.pub.der
openssl ec -in prime256v1.pem -out prime256v1.sec1.pem 2>/dev/null
openssl ec -in prime256v1.pem -outform DER -out prime256v1.sec1.der 2>/dev/null
openssl ec -in prime256v1.pem -no_public -out prime256v1.nopub.pem 2>/dev/null
openssl ec -in prime256v1.pem -pubout -conv_form compressed -out prime256v1.compressed.pub.pem 2>/dev/null
openssl ec -in prime256v1.pem -param_enc explicit -out prime256v1.explicit.pem 2>/dev/null
openssl ec -in secp256k1.pem -no_public -out bad.k1nopub.pem 2>/dev/null
{ openssl ecparam -name prime256v1; cat prime256v1.sec1.pem; } > prime256v1.params.pem
openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:1024 -out bad.rsapss.pem 2>/dev/null

# Encrypted keys.
for c in aes128 aes256 des3; do
	openssl rsa -in rsa.pem -traditional -$c -passout "pass:$P" -out rsa.trad-$c.pem 2>/dev/null
done
openssl ec -in prime256v1.pem -aes256 -passout "pass:$P" -out prime256v1.trad-aes256.pem 2>/dev/null
enc() { k=$1 n=$2; shift 2; openssl pkcs8 -topk8 -in $k.pem -passout "pass:$P" -out $k.$n.pem "$@"; }
enc rsa p8-aes128-sha1 -v2 aes-128-cbc -v2prf hmacWithSHA1
enc rsa p8-aes192-sha224 -v2 aes-192-cbc -v2prf hmacWithSHA224
enc rsa p8-aes256-sha256 -v2 aes-256-cbc -v2prf hmacWithSHA256
enc rsa p8-aes256-sha384 -v2 aes-256-cbc -v2prf hmacWithSHA384
enc rsa p8-aes256-sha512 -v2 aes-256-cbc -v2prf hmacWithSHA512 -iter 10000
enc rsa p8-des3 -v2 des3
enc rsa p8-scrypt -scrypt -scrypt_N 1024
enc prime256v1 p8-aes256 -v2 aes-256-cbc
enc ed25519 p8-aes256 -v2 aes-256-cbc
enc rsa p8-v1-des3 -v1 PBE-SHA1-3DES
enc rsa p8-v1-2des -v1 PBE-SHA1-2DES
enc rsa p8-v1-md5des -v1 PBE-MD5-DES -provider default -provider legacy
enc rsa p8-v1-sha1des -v1 PBE-SHA1-DES -provider default -provider legacy
enc rsa p8-v1-rc2-128 -v1 PBE-SHA1-RC2-128 -provider default -provider legacy
enc rsa p8-v1-rc2-40 -v1 PBE-SHA1-RC2-40 -provider default -provider legacy
openssl pkcs8 -topk8 -in rsa.pem -passout "pass:$P" -outform DER -out rsa.p8-enc.der
enc prime256v1 p8-iter -iter 1000
mv prime256v1.p8-iter.pem prime256v1.p8-aes.pem

# Certificates.
openssl req -x509 -new -key rsa.pem -days 36500 -subj '/C=XX/O=Example/CN=web.example.org' -out rsa.crt.pem
openssl req -x509 -new -key prime256v1.pem -days 36500 -subj '/CN=ec.example.org' -out prime256v1.crt.pem
openssl req -x509 -new -key ed25519.pem -days 36500 -subj '/O=No common name' -out ed25519.crt.pem
openssl x509 -in rsa.crt.pem -outform DER -out rsa.crt.der
openssl x509 -in rsa.crt.pem -trustout -addtrust serverAuth -out rsa.trusted.pem
cat rsa.p8-aes256-sha256.pem rsa.crt.pem prime256v1.crt.pem > bundle.pem
cat rsa.crt.pem prime256v1.crt.pem rsa.crt.pem > chain.pem

# PKCS#12.
p12() { n=$1; shift; openssl pkcs12 -export -out $n.p12 "$@"; }
p12 rsa.modern -inkey rsa.pem -in rsa.crt.pem -certfile prime256v1.crt.pem -name 'Web server' -passout "pass:$P"
p12 rsa.legacy -legacy -inkey rsa.pem -in rsa.crt.pem -name 'Web server' -passout "pass:$P"
p12 rsa.des3 -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 -inkey rsa.pem -in rsa.crt.pem -name 'Web server' -passout "pass:$P"
p12 rsa.plain -keypbe NONE -certpbe NONE -nomac -inkey rsa.pem -in rsa.crt.pem -name 'Web server' -passout pass:
p12 rsa.unicode -keypbe PBE-SHA1-3DES -inkey rsa.pem -in rsa.crt.pem -name 'Zürich' -passout "pass:$U"
p12 rsa.empty -inkey rsa.pem -in rsa.crt.pem -passout pass:
p12 rsa.emptydes3 -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -inkey rsa.pem -in rsa.crt.pem -passout pass:
p12 prime256v1.keyonly -nocerts -inkey prime256v1.pem -name 'Only a key' -passout "pass:$P"
p12 certonly -nokeys -in rsa.crt.pem -passout "pass:$P"
p12 ed25519 -inkey ed25519.pem -in ed25519.crt.pem -macalg sha512 -passout "pass:$P"
openssl req -x509 -new -key prime256v1.pem -days 36500 -set_serial -5 -subj /CN=odd -out odd.pem
p12 odd -inkey prime256v1.pem -in odd.pem -name odd -passout "pass:$P"
rm odd.pem
openssl genrsa 8192 2>/dev/null | openssl pkcs8 -topk8 -nocrypt -outform DER -out rsa8192.p8.der
openssl genrsa 512 2>/dev/null | openssl pkey -outform DER -out rsa512.p8.der
openssl genpkey -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:1024 -out t 2>/dev/null
openssl genpkey -paramfile t -out bad.dsa.pem
openssl pkey -in rsa-e2p32p1.der -inform DER -pubout -out bad.e33.pub.pem
# Written by others: nss.p12 by pk12util (pass phrase secret), java.p12 by keytool
# (secret12), the rest by hand: haproxy.pem, serial-negative.pem, ec-bp256.pem, ia5-high.pem,
# ec-explicit.p8, rsa-e2p32p1.der, ed-v1.p8, and ed-v2.p8, which is the same with its public key.
store() { keytool "$@" -storetype PKCS12 -keystore java.p12 -storepass secret12; }
store -genseckey -keyalg AES -keysize 256 -alias disk
store -genseckey -keyalg HmacSHA256 -keysize 256 -alias mac
store -genkeypair -keyalg EC -groupname secp256r1 -alias web -dname CN=web
store -genseckey -keyalg DESede -keysize 168 -alias old

# OpenSSH.
for k in rsa prime256v1 ed25519; do
	if [ $k = ed25519 ]; then
		# openssl cannot print this form: a key of its own.
		ssh-keygen -q -t ed25519 -N '' -C 'anna@example.org' -f sshed
	else
		cp $k.pem t; chmod 600 t; ssh-keygen -q -p -N '' -P '' -f t >/dev/null; mv t $k.ssh
		ssh-keygen -y -f $k.ssh > $k.ssh.pub
	fi
done
cp rsa.ssh t; ssh-keygen -q -p -P '' -N "$P" -a 4 -f t >/dev/null; mv t rsa.enc.ssh
cp sshed t; ssh-keygen -q -p -P '' -N "$P" -a 4 -f t >/dev/null; mv t sshed.enc

# In testdata/traditional, OpenSSL's own forms, and curves by their numbers.
openssl dsaparam -out t 1024 2>/dev/null
openssl gendsa -out u t 2>/dev/null
{ cat t; openssl pkey -in u -traditional; } > dsa.pem
openssl dsaparam -out dsaparam.pem 1024 2>/dev/null
openssl dhparam -5 -out dhparam.pem 512 2>/dev/null
openssl ecparam -name brainpoolP256r1 -genkey -noout -param_enc explicit -out brainpoolP256r1.explicit.pem
openssl ecparam -name secp256k1 -genkey -noout -param_enc explicit -conv_form compressed -out secp256k1.explicit.pem
