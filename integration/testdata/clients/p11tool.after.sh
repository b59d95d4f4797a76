certtool --certificate-info --infile=ca.pem --outder --outfile=ca.der
certtool --certificate-info --infile=exported.pem --outder --outfile=exported.der
cmp ca.der exported.der
openssl verify -CAfile ca.pem web.pem
p11tool --provider=$M --login --list-privkeys "$T" | grep -q 'Label: ca'
p11tool --provider=$M --list-mechanisms "$T" | grep -q CKM_RSA_PKCS
p11tool --provider=$M --generate-random=16 --outfile=random "$T"
[ "$(wc -c < random)" = 16 ]
# What p11tool wrote is in the tree.
openssl x509 -in "$(p11fs path swtok)/certs/ca.pem" -outform DER > tree.der
cmp ca.der tree.der
p11tool --provider=$M --login --batch --delete "$T;object=ca;type=cert"
! p11tool --provider=$M --export "$T;object=ca;type=cert"
