import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.PublicKey;
import java.security.Security;
import java.security.Signature;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.util.Arrays;
import java.util.Collections;
import javax.crypto.Cipher;

/** Uses a token through SunPKCS11: Token CONFIG PIN. The key store has an entry called java. */
public class Token {
    static final byte[] MESSAGE = "attack at dawn".getBytes();

    public static void main(String[] args) throws Exception {
        Provider p = Security.getProvider("SunPKCS11").configure(args[0]);
        Security.addProvider(p);

        KeyStore store = KeyStore.getInstance("PKCS11", p);
        store.load(null, args[1].toCharArray());
        PrivateKey key = (PrivateKey) store.getKey("java", null);
        X509Certificate cert = (X509Certificate) store.getCertificate("java");
        cert.verify(cert.getPublicKey());
        sign(p, "SHA256withECDSA", key, cert.getPublicKey());
        if (key.getEncoded() != null) throw new AssertionError("the key can be read");
        if (!Collections.list(store.aliases()).contains("java")) throw new AssertionError("no alias java");

        KeyPairGenerator ec = KeyPairGenerator.getInstance("EC", p);
        ec.initialize(new ECGenParameterSpec("secp384r1"));
        KeyPair pair = ec.generateKeyPair();
        sign(p, "SHA384withECDSA", pair.getPrivate(), pair.getPublic());

        KeyPairGenerator rsa = KeyPairGenerator.getInstance("RSA", p);
        rsa.initialize(2048);
        pair = rsa.generateKeyPair();
        sign(p, "SHA256withRSA", pair.getPrivate(), pair.getPublic());
        sign(p, "SHA512withRSA", pair.getPrivate(), pair.getPublic());
        many(p, pair.getPrivate());

        Cipher c = Cipher.getInstance("RSA/ECB/PKCS1Padding", p);
        c.init(Cipher.ENCRYPT_MODE, pair.getPublic());
        byte[] secret = c.doFinal(MESSAGE);
        c.init(Cipher.DECRYPT_MODE, pair.getPrivate());
        if (!Arrays.equals(c.doFinal(secret), MESSAGE)) throw new AssertionError("decrypted to something else");

        if (!p.getService("Cipher", "RSA/ECB/PKCS1Padding").getProvider().equals(p)) throw new AssertionError();
        aes(p);
        System.out.println("all well");
    }

    /** Signs in the token; verifies there and with Java's own code. */
    static void sign(Provider p, String algorithm, PrivateKey key, PublicKey pub) throws Exception {
        Signature s = Signature.getInstance(algorithm, p);
        s.initSign(key);
        s.update(MESSAGE);
        byte[] signature = s.sign();
        for (Provider by : new Provider[] {p, Security.getProvider(algorithm.endsWith("RSA") ? "SunRsaSign" : "SunEC")}) {
            Signature v = Signature.getInstance(algorithm, by);
            v.initVerify(by == p ? pub : (PublicKey) java.security.KeyFactory
                .getInstance(algorithm.endsWith("RSA") ? "RSA" : "EC", by)
                .generatePublic(new java.security.spec.X509EncodedKeySpec(pub.getEncoded())));
            v.update(MESSAGE);
            if (!v.verify(signature)) throw new AssertionError(algorithm + " is not verified by " + by.getName());
        }
    }

    /** Each open signature has a session of its own. */
    static void many(Provider p, PrivateKey key) throws Exception {
        Signature[] open = new Signature[200];
        for (int i = 0; i < open.length; i++) {
            open[i] = Signature.getInstance("SHA256withRSA", p);
            open[i].initSign(key);
            open[i].update(MESSAGE);
        }
        for (Signature s : open) if (s.sign().length != 256) throw new AssertionError("an open signature is lost");
    }

    /** AES is offered as far as the module passes its parameters. */
    static void aes(Provider p) throws Exception {
        for (String mode : new String[] {"AES/ECB/NoPadding", "AES/CBC/NoPadding", "AES/CBC/PKCS5Padding", "AES/CTR/NoPadding", "AES/GCM/NoPadding"}) {
            if (p.getService("Cipher", mode) == null) {
                System.out.println("not offered: " + mode);
                continue;
            }
            javax.crypto.KeyGenerator g = javax.crypto.KeyGenerator.getInstance("AES", p);
            g.init(256);
            javax.crypto.SecretKey key = g.generateKey();
            byte[] message = Arrays.copyOf(MESSAGE, 32);
            Cipher c = Cipher.getInstance(mode, p);
            c.init(Cipher.ENCRYPT_MODE, key);
            byte[] secret = c.doFinal(message);
            java.security.AlgorithmParameters parameters = c.getParameters();
            Cipher d = Cipher.getInstance(mode, p);
            if (parameters == null) d.init(Cipher.DECRYPT_MODE, key);
            else d.init(Cipher.DECRYPT_MODE, key, parameters);
            if (!Arrays.equals(d.doFinal(secret), message)) throw new AssertionError(mode + " decrypted to something else");
            System.out.println("well: " + mode);
        }
    }
}
