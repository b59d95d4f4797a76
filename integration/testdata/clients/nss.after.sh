certutil -S -d sql:nssdb -h demo -f pin -z noise -n nss-rsa -s CN=nss-rsa -x -t ,, -k rsa -g 2048
certutil -L -d sql:nssdb -h demo -f pin -n demo:nss-rsa -a | openssl x509 -noout -subject | grep -q nss-rsa
certutil -K -d sql:nssdb -h demo -f pin | grep -q 'ec .*demo:nss$'
echo wrong > wrong
! certutil -K -d sql:nssdb -h demo -f wrong
certutil -F -d sql:nssdb -h demo -f pin -n demo:nss-rsa
! certutil -L -d sql:nssdb -h demo -f pin -n demo:nss-rsa
modutil -force -dbdir sql:nssdb -delete p11fs
