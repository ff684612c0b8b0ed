package demo

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// action is one thing that people at a university do: one transaction.
type action struct {
	name   string
	weight int // of the sum of all
	do     func(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error
}

var actions = []action{
	{"enrol", 34, enrol},
	{"cancel", 16, cancel},
	{"offer", 14, offer},
	{"grade", 8, grade},
	{"praise", 8, comment},
	{"edit", 5, editComment},
	{"move", 7, move},
	{"revise", 1, reviseEssay},
	{"resize", 3, resize},
	{"join", 4, join},
	{"leave", 2, leave},
	{"renumber", 2, renumber},
	{"archive", 1, archive},
	{"regret", 2, regret},
}

var totalWeight = func() (sum int) {
	for _, a := range actions {
		sum += a.weight
	}
	return sum
}()

func chooseAction(rng *rand.Rand) action {
	n := rng.IntN(totalWeight)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			return a
		}
	}
	panic("weights do not add up")
}

// What an action returns to have its transaction rolled back without being at fault.
var (
	// errNobody: there was nobody and nothing to do it with.
	errNobody = errors.New("nothing to do")
	// errRegret: the transaction was meant to be rolled back; no topic may show a trace.
	errRegret = errors.New("meant to be rolled back")
)

const (
	mostStudents   = 400
	keptFeedback   = 5_000 // older feedback is archived, so that a long run stays small
	archiveAtATime = 500
	essaySize      = 4_000  // bytes, stored out of line from about 2,000 on
	syllabusSize   = 12_000 // bytes
)

// These find a row at a place in key order; $1 in [0, 1) says where.
const anyStudent = `SELECT id FROM students
	WHERE id >= (SELECT min(id) + floor($1::float8 * (max(id) - min(id) + 1))::int FROM students) ORDER BY id LIMIT 1`

const anyEnrolment = `SELECT student_id, course_id FROM enrolments
	WHERE student_id >= (SELECT min(student_id) + floor($1::float8 * (max(student_id) - min(student_id) + 1))::int FROM enrolments)
	ORDER BY student_id, course_id LIMIT 1`

const anyFeedback = `SELECT id FROM feedback
	WHERE id >= (SELECT min(id) + floor($1::float8 * (max(id) - min(id) + 1))::bigint FROM feedback) ORDER BY id LIMIT 1`

// find scans the one row that query gives.
func find(ctx context.Context, tx pgx.Tx, rng *rand.Rand, query string, into ...any) error {
	err := tx.QueryRow(ctx, query, rng.Float64()).Scan(into...)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNobody
	}
	return err
}

// exec runs a statement that is to touch at least one row.
func exec(ctx context.Context, tx pgx.Tx, sql string, args ...any) error {
	tag, err := tx.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		return errNobody
	}
	return err
}

func addCourse(ctx context.Context, tx pgx.Tx, rng *rand.Rand, c course) error {
	return exec(ctx, tx, `INSERT INTO courses (id, title, capacity, credits, syllabus) VALUES ($1, $2, $3, $4::text::numeric, $5)`,
		c.id, c.title, c.capacity, c.credits, prose(rng, syllabusSize))
}

// join enters a new student, unless the house is full.
func join(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	name := pick(rng, firstNames) + " " + pick(rng, lastNames)
	return exec(ctx, tx, `INSERT INTO students (name, email, joined, interests, essay)
		SELECT $1, 's' || nextval('student_number') || '@' || $2, current_date - $3::int, $4, $5
		WHERE (SELECT count(*) FROM students) < $6`,
		name, mailDomain(rng), rng.IntN(1500), some(rng, interests, 4), prose(rng, essaySize), mostStudents)
}

func mailDomain(rng *rand.Rand) string {
	return pick(rng, []string{"example.edu", "example.org", "mail.example", "例え.example"})
}

// enrol gives a student a place, or a place on the waiting list where the course
// is full. The lock on the course makes counting its places safe.
func enrol(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student, capacity, taken int
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return err
	}
	course := pick(rng, courses).id
	if err := lockCourse(ctx, tx, course, &capacity, &taken); err != nil {
		return err
	}
	if taken < capacity {
		return exec(ctx, tx, `INSERT INTO enrolments (student_id, course_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, student, course)
	}
	return exec(ctx, tx, `INSERT INTO waiting_list (course_id, student_id, position)
		SELECT $1::text, $2::int, 1 + coalesce((SELECT max(position) FROM waiting_list WHERE course_id = $1), 0)
		WHERE NOT EXISTS (SELECT FROM enrolments WHERE course_id = $1 AND student_id = $2) ON CONFLICT DO NOTHING`, course, student)
}

func lockCourse(ctx context.Context, tx pgx.Tx, course string, capacity, taken *int) error {
	err := tx.QueryRow(ctx, `SELECT capacity FROM courses WHERE id = $1 FOR NO KEY UPDATE`, course).Scan(capacity)
	if err != nil {
		return err
	}
	return tx.QueryRow(ctx, `SELECT count(*) FROM enrolments WHERE course_id = $1`, course).Scan(taken)
}

// cancel is the example that runs through this service: as rows, a delete and an
// insert in one transaction; what was meant is only in the reader's head.
func cancel(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int
	var course string
	if err := find(ctx, tx, rng, anyEnrolment, &student, &course); err != nil {
		return err
	}
	if err := exec(ctx, tx, `DELETE FROM enrolments WHERE student_id = $1 AND course_id = $2`, student, course); err != nil {
		return err
	}
	details := map[string]any{"reason": pick(rng, reasons), "weeks": rng.IntN(14), "would_return": rng.IntN(2) == 0}
	return insertFeedback(ctx, tx, student, course, "cancellation", prose(rng, 20+rng.IntN(60)), details)
}

func insertFeedback(ctx context.Context, tx pgx.Tx, student int, course, kind, body string, details map[string]any) error {
	return exec(ctx, tx, `INSERT INTO feedback (student_id, course_id, kind, body, details) VALUES ($1, $2, $3, $4, $5)`,
		student, course, kind, body, details)
}

// offer gives a free place to the next on the waiting list.
func offer(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	// The longest list first, now and then any.
	var course string
	err := tx.QueryRow(ctx, `SELECT w.course_id FROM waiting_list w JOIN courses c ON c.id = w.course_id
		WHERE c.capacity > (SELECT count(*) FROM enrolments e WHERE e.course_id = c.id)
		GROUP BY 1 ORDER BY count(*) * (0.5 + $1::float8) DESC LIMIT 1`, rng.Float64()).Scan(&course)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNobody
	}
	if err != nil {
		return err
	}
	var capacity, taken int
	if err := lockCourse(ctx, tx, course, &capacity, &taken); err != nil {
		return err
	}
	if taken >= capacity {
		return errNobody
	}
	return exec(ctx, tx, `WITH next AS (
			DELETE FROM waiting_list w USING (
				SELECT student_id FROM waiting_list WHERE course_id = $1 ORDER BY position LIMIT 1) first
			WHERE w.course_id = $1 AND w.student_id = first.student_id RETURNING w.student_id)
		INSERT INTO enrolments (student_id, course_id) SELECT student_id, $1 FROM next ON CONFLICT DO NOTHING`, course)
}

func grade(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int
	var course string
	if err := find(ctx, tx, rng, anyEnrolment, &student, &course); err != nil {
		return err
	}
	value := strconv.Itoa(1+rng.IntN(5)) + "." + pick(rng, []string{"0", "3", "7"})
	return exec(ctx, tx, `UPDATE enrolments SET grade = $3::text::numeric WHERE student_id = $1 AND course_id = $2`, student, course, value)
}

func comment(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return err
	}
	kind := pick(rng, []string{"praise", "praise", "complaint"})
	details := map[string]any{"stars": rng.IntN(6), "tags": some(rng, vocabulary, 3), "about": map[string]any{"lecture": rng.IntN(14), "room": nil}}
	return insertFeedback(ctx, tx, student, pick(rng, courses).id, kind, prose(rng, 20+rng.IntN(200)), details)
}

func editComment(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var id int64
	if err := find(ctx, tx, rng, anyFeedback, &id); err != nil {
		return err
	}
	return exec(ctx, tx, `UPDATE feedback SET body = $2, details = details || '{"edited": true}' WHERE id = $1`, id, prose(rng, 20+rng.IntN(200)))
}

// move touches a student's row but not the essay in it.
func move(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return err
	}
	return exec(ctx, tx, `UPDATE students SET email = split_part(email, '@', 1) || '@' || $2, interests = $3 WHERE id = $1`,
		student, mailDomain(rng), some(rng, interests, 4))
}

func reviseEssay(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return err
	}
	return exec(ctx, tx, `UPDATE students SET essay = $2 WHERE id = $1`, student, prose(rng, essaySize/2+rng.IntN(essaySize)))
}

// resize touches a course's row but not the syllabus in it.
func resize(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	return exec(ctx, tx, `UPDATE courses SET capacity = greatest(5, least(60, capacity + $2)), credits = credits + 0.5 - 1.0 * (credits > 5)::int WHERE id = $1`,
		pick(rng, courses).id, rng.IntN(5)-2)
}

// leave removes a student with places and waiting, by the foreign keys.
func leave(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return err
	}
	return exec(ctx, tx, `DELETE FROM students WHERE id = $1`, student)
}

// renumber changes the key of a student and, by the foreign keys, of all that hangs on it.
func renumber(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return err
	}
	return exec(ctx, tx, `UPDATE students SET id = nextval('student_number') WHERE id = $1`, student)
}

func archive(ctx context.Context, tx pgx.Tx, _ *rand.Rand) error {
	return exec(ctx, tx, `DELETE FROM feedback WHERE id IN (
		SELECT id FROM feedback WHERE id < (SELECT max(id) FROM feedback) - $1 ORDER BY id LIMIT $2)`, keptFeedback, archiveAtATime)
}

// regret does something and takes it back.
func regret(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	if err := comment(ctx, tx, rng); err != nil {
		return err
	}
	return errRegret
}
