// Runs graphene-pk11's own tests: suite.js MODULE PIN [SKIP]. The package has
// come without them since 2.1; those of the last version that had them run here
// over the present one. The PIN is the user's and the SO's. SKIP is a regular
// expression of titles.
const fs = require("fs");
const path = require("path");
const Mocha = require("mocha");
const graphene = require("graphene-pk11");
const [, , lib, pin, skip] = process.argv;

// Without CKF_OS_LOCKING_OK p11-kit-client.so refuses; the tests leave it to
// the module.
const initialize = graphene.Module.prototype.initialize;
graphene.Module.prototype.initialize = function (options) {
  return initialize.call(this, options || { flags: 2 });
};

// What the tests are told to find, as the token has it.
const module_ = graphene.Module.load(lib, "p11fs");
module_.initialize();
const slot = module_.getSlots(0, true);
const token = slot.getToken();
const config = {
  init: { lib, libName: "p11fs", pin },
  controlValues: {
    module: { manufacturerID: module_.manufacturerID, libraryDescription: module_.libraryDescription },
    slot: {
      slotIndex: 0,
      token: { flags: token.flags, label: token.label, manufacturerID: token.manufacturerID, serialNumber: token.serialNumber, minPinLen: token.minPinLen },
      mechanisms: slot.getMechanisms().length,
    },
    slotsCount: module_.getSlots(true).length,
  },
};
module_.finalize();
module_.close();

const from = path.dirname(require.resolve("graphene-pk11-with-tests/package.json"));
for (const directory of ["test", "vendor"]) fs.cpSync(path.join(from, directory), directory, { recursive: true });
fs.mkdirSync("build");
fs.writeFileSync("build/graphene.js", 'module.exports = require("graphene-pk11");\n');
fs.writeFileSync("test/config.json", JSON.stringify(config));

const mocha = new Mocha({ reporter: "spec", timeout: 60_000 });
if (skip) mocha.grep(new RegExp(skip)).invert();
for (const file of fs.readdirSync("test").filter((name) => name.endsWith(".js"))) mocha.addFile(path.resolve("test", file));
mocha.run((failures) => process.exit(failures ? 1 : 0));
