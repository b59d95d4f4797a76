package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecipes runs the lines of docs/recipes.md under two shells, all recipes at once on
// one token, and then what testdata/recipes has for each: that looks at the bytes.
func TestRecipes(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "rsync", "curl", "tar", "ssh-keygen")
	doc := readDoc(t, "recipes.md", "sh")
	if len(doc) < 20 {
		t.Fatalf("docs/recipes.md has %d recipes", len(doc))
	}
	for _, shell := range []string{"bash", "dash"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			needTools(t, shell)
			d, _ := ready(t, daemonConfig{})
			for heading, script := range doc {
				t.Run(heading, func(t *testing.T) {
					t.Parallel()
					slug := strings.ReplaceAll(strings.NewReplacer(",", "", "`", "").Replace(strings.ToLower(heading)), " ", "-")
					check, err := os.ReadFile(filepath.Join("testdata", "recipes", slug+".sh"))
					if err != nil {
						t.Fatalf("nothing looks at what the recipe gives: %v", err)
					}
					term := d.terminal(shell)
					term.t = t
					term.ok("export T O; echo " + userPIN + " > $T/login && echo " + userPIN + " > pin")
					term.ok(recipeFiles)
					term.ok(script)
					term.ok("(set -e\n" + string(check) + ")")
				})
			}
		})
	}
}

// recipeFiles makes what the recipes work on.
const recipeFiles = `head -c 3000000 /dev/urandom > app.tar &&
for i in 1 2 3 4 5 6 7 8 9; do head -c ${i}0000 /dev/urandom > part.$i || exit; done &&
printf short > short.in && mkdir -p tree/sub && cp part.1 tree/sub/one && cp part.2 tree/two &&
for name in leaf other-of-another-length; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.pem -subj /CN=$name$name 2> openssl.log || exit; done &&
mv other-of-another-length.pem other.pem`
