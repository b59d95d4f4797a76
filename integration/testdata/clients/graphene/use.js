// Uses a token through graphene-pk11: graphene.js MODULE PIN.
const assert = require("assert");
const graphene = require("graphene-pk11");
const [, , path, pin] = process.argv;

const module_ = graphene.Module.load(path, "p11fs");
// CKF_OS_LOCKING_OK, without which p11-kit-client.so refuses.
module_.initialize({ flags: 2 });
try {
  const slot = module_.getSlots(0, true);
  assert.strictEqual(slot.getToken().label.trim(), "demo");
  const mechanisms = slot.getMechanisms();
  const offered = [];
  for (let i = 0; i < mechanisms.length; i++) offered.push(mechanisms.items(i).name);
  const session = slot.open(graphene.SessionFlag.SERIAL_SESSION | graphene.SessionFlag.RW_SESSION);
  assert.throws(() => session.login("wrong pin"), /CKR_PIN_INCORRECT/);
  session.login(pin);
  const message = Buffer.from("attack at dawn");

  const digest = session.createDigest("SHA256");
  digest.update(message);
  assert.deepStrictEqual(digest.final(), require("crypto").createHash("sha256").update(message).digest());
  assert.strictEqual(session.generateRandom(20).length, 20);

  const rsa = session.generateKeyPair(graphene.KeyGenMechanism.RSA,
    { keyType: graphene.KeyType.RSA, modulusBits: 2048, publicExponent: Buffer.from([1, 0, 1]), token: false, verify: true, encrypt: true },
    { keyType: graphene.KeyType.RSA, token: false, sign: true, decrypt: true });
  const sign = session.createSign("SHA256_RSA_PKCS", rsa.privateKey);
  sign.update(message);
  const signature = sign.final();
  const verify = session.createVerify("SHA256_RSA_PKCS", rsa.publicKey);
  verify.update(message);
  assert.ok(verify.final(signature));
  signature[0] ^= 1;
  const wrong = session.createVerify("SHA256_RSA_PKCS", rsa.publicKey);
  wrong.update(message);
  assert.ok(!wrong.final(signature));

  const ec = session.generateKeyPair(graphene.KeyGenMechanism.ECDSA,
    { keyType: graphene.KeyType.ECDSA, paramsEC: graphene.NamedCurve.getByName("secp256r1").value, token: false, verify: true },
    { keyType: graphene.KeyType.ECDSA, token: false, sign: true });
  const hash = require("crypto").createHash("sha256").update(message).digest();
  assert.ok(session.createVerify("ECDSA", ec.publicKey).once(hash, session.createSign("ECDSA", ec.privateKey).once(hash)));

  const aes = session.generateKey(graphene.KeyGenMechanism.AES,
    { keyType: graphene.KeyType.AES, valueLen: 32, token: false, encrypt: true, decrypt: true });
  const block = Buffer.alloc(32, 7);
  const secret = session.createCipher("AES_ECB", aes).once(block, Buffer.alloc(48));
  assert.deepStrictEqual(session.createDecipher("AES_ECB", aes).once(secret, Buffer.alloc(48)), block);
  if (offered.includes("AES_CBC_PAD")) {
    const mechanism = { name: "AES_CBC_PAD", params: Buffer.alloc(16, 1) };
    const padded = session.createCipher(mechanism, aes).once(message, Buffer.alloc(64));
    assert.deepStrictEqual(session.createDecipher(mechanism, aes).once(padded, Buffer.alloc(64)), message);
  }
  if (offered.includes("AES_GCM")) {
    // pkcs11js leaves a field of these parameters unset.
    for (const params of [new graphene.AesGcmParams(Buffer.alloc(12, 1)), new graphene.AesGcmParams(Buffer.alloc(12, 1), Buffer.from("aad"))]) {
      const mechanism = { name: "AES_GCM", params };
      const sealed = session.createCipher(mechanism, aes).once(message, Buffer.alloc(64));
      assert.deepStrictEqual(session.createDecipher(mechanism, aes).once(sealed, Buffer.alloc(64)), message);
    }
  }

  session.create({ class: graphene.ObjectClass.DATA, label: "note", value: message, token: false, private: true });
  const found = session.find({ label: "note" });
  assert.strictEqual(found.length, 1);
  assert.deepStrictEqual(found.items(0).getAttribute({ value: null }).value, message);
  found.items(0).destroy();
  assert.strictEqual(session.find({ label: "note" }).length, 0);
  session.logout();
  session.close();
} finally {
  module_.finalize();
}
console.log("all well");
