cmp ca.pem exported.pem
openssl verify -CAfile ca.pem web.pem
p11tool --provider=$M --login --list-privkeys "$T" | grep -q 'Label: ca'
p11tool --provider=$M --list-mechanisms "$T" | grep -q CKM_RSA_PKCS
p11tool --provider=$M --generate-random=16 --outfile=random "$T"
[ "$(wc -c < random)" = 16 ]
# What is made by p11tool is in the tree, and signs there.
echo 1234abcd | p11fs login swtok
cmp $T_DIR/certs/ca.crt ca.pem || openssl x509 -in $T_DIR/certs/ca.crt -noout -subject
p11tool --provider=$M --login --batch --delete "$T;object=ca;type=cert"
! p11tool --provider=$M --export "$T;object=ca;type=cert"
