package demo

import (
	"math/rand/v2"
	"strings"
)

// course is one that the university begins with.
type course struct {
	id, title string
	capacity  int
	credits   string // numeric(4,1)
}

// Capacities are small, so that courses fill up and waiting lists form.
var courses = []course{
	{"ddia", "Designing Data-Intensive Applications", 25, "6.0"},
	{"algebra", "Linear Algebra", 40, "9.0"},
	{"compilers", "Compiler Construction", 12, "7.5"},
	{"networks", "Computer Networks", 30, "6.0"},
	{"logic", "Logic and Proof", 20, "4.5"},
	{"databases", "Database Systems", 35, "7.5"},
	{"ethics", "Ethics of Engineering", 15, "3.0"},
	{"statistics", "Statistics I", 40, "6.0"},
	{"painting", "Watercolour for Beginners", 8, "1.5"},
	{"japanese", "日本語 I", 18, "5.0"},
	{"music", "Música de câmara", 10, "2.5"},
	{"astronomy", "The Night Sky", 22, "4.0"},
}

var (
	firstNames = strings.Fields("Ada Alan Barbara Björn Chiara Dennis Edsger Frances Grace Hedy İpek Jun Katherine Leslie Margaret Niklaus Olga Paweł Radia Sophie Tim Ursula Vera Zoë 花子 太郎")
	lastNames  = strings.Fields("Allen Borg Codd Dijkstra Estrin García Hamilton Hopper Iverson Johnson Knuth Lamport Liskov Müller Noether O'Brien Perlman Ritchie Shannon Stonebraker Turing Wirth Østergård Zuse")
	interests  = strings.Fields("chess climbing cooking history music origami poetry radio rowing sailing theatre \"quoted\" a,b naïve")
	vocabulary = strings.Fields("about after already because before between building careful change clear common course data early enough every example experiment first foundation group habit history idea instead kept language later learn lecture little long lost machine made matter measure morning never notes number often once order other paper perhaps place plan problem proof question quiet rather reason record rest right room rule second seminar several simple slow small sometimes state still story table teach term theory thing think together truth under value water while whole without word work write year")
	reasons    = []string{"timetable", "moved away", "too difficult", "too easy", "changed subject", "no reason given"}
)

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// some is a handful of different elements, possibly none.
func some(rng *rand.Rand, from []string, most int) []string {
	chosen := []string{} // not nil: an empty array, not NULL
	for _, i := range rng.Perm(len(from))[:rng.IntN(most+1)] {
		chosen = append(chosen, from[i])
	}
	return chosen
}

// prose is text of about size bytes.
func prose(rng *rand.Rand, size int) string {
	var b strings.Builder
	b.Grow(size + 16)
	for b.Len() < size {
		b.WriteString(pick(rng, vocabulary))
		switch rng.IntN(12) {
		case 0:
			b.WriteString(".\n")
		case 1:
			b.WriteString(", ")
		default:
			b.WriteByte(' ')
		}
	}
	return strings.TrimSpace(b.String())
}
