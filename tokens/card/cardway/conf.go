package cardway

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
)

// Bounds of a configuration file.
const (
	MaxConf  = 64 << 10 // bytes
	maxWords = 8192
)

// A Word is one of a configuration file.
type Word struct {
	Text   string
	Line   int
	Quoted bool
	Ours   bool // behind #p11fs:
}

// Is says whether a word is that mark or name, and no text.
func (w Word) Is(s string) bool { return !w.Quoted && w.Text == s }

// Bad is an error of a word, and says to mend it.
func (w Word) Bad(why string) error {
	return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "line %d: %s", w.Line, why), "mend that line: p11fs(5) says what may stand there")
}

// Words takes a file apart (openCryptoki 3.27). Each of marks is a word of its own. What stands
// behind # is a comment, but for that of a line which begins #p11fs:.
func Words(src, marks string) (list []Word, err error) {
	line := 0
	for text := range strings.Lines(src) {
		line++
		rest := strings.TrimLeft(text, " \t")
		rest, ours := strings.CutPrefix(rest, "#p11fs:")
		for {
			rest = strings.TrimLeft(rest, " \t\r\n")
			if rest == "" || rest[0] == '#' {
				break
			}
			w := Word{Line: line, Ours: ours}
			switch end := strings.IndexAny(rest, " \t\r\n#\""+marks); {
			case strings.IndexByte(marks, rest[0]) >= 0:
				w.Text, rest = rest[:1], rest[1:]
			case rest[0] == '"':
				text, behind, closed := strings.Cut(rest[1:], `"`)
				if !closed {
					return nil, w.Bad("a text begins with a quotation mark and does not end")
				}
				w.Text, w.Quoted, rest = text, true, behind
			case end < 0:
				w.Text, rest = rest, ""
			default:
				w.Text, rest = rest[:end], rest[end:]
			}
			if list = append(list, w); len(list) > maxWords {
				return nil, w.Bad("there are more than " + strconv.Itoa(maxWords) + " words")
			}
		}
	}
	return list, nil
}

// Clip is what an error says of a text.
func Clip(s string) string {
	const most = 40
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}

// Path is the configuration file of a place: that of its slot, or the one in the token
// directory, or none.
func (w Way) Path(p tokens.Place) string {
	if p.Config != "" {
		return p.Config
	}
	own := filepath.Join(p.Dir, w.Conf)
	if _, err := os.Lstat(own); err != nil {
		return ""
	}
	return own
}

// Read reads it, and returns its path, which is empty where there is none. Who may write the
// token directory does not say there where keys and data go.
func (w Way) Read(p tokens.Place) (path, text string, err error) {
	if path = w.Path(p); path == "" {
		return "", "", nil
	}
	if p.Config != "" {
		text, err = ReadFile(path)
		return path, text, err
	}
	text, err = read(path, func(string) (*os.File, error) { return locks.OpenOwn(p.Dir, w.Conf) })
	return path, text, err
}

// ReadFile reads a file that is no longer than MaxConf.
func ReadFile(path string) (string, error) {
	return read(path, func(path string) (*os.File, error) {
		return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
}

// ReadOwn is ReadFile of a file that nobody else can have put there, or may write.
func ReadOwn(path string) (string, error) {
	return read(path, func(path string) (*os.File, error) { return locks.OpenOwn(filepath.Dir(path), filepath.Base(path)) })
}

func read(path string, open func(string) (*os.File, error)) (string, error) {
	const advice = "make it a file that the daemon may read"
	f, err := open(path)
	if err != nil {
		return "", p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the configuration of the token: %w", err), advice)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxConf+1))
	switch {
	case err != nil:
		return "", p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the configuration of the token: %w", err), advice)
	case len(b) > MaxConf:
		return "", p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s has more than %d bytes", path, MaxConf), "make it shorter")
	}
	return string(b), nil
}
