package demo

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"cdc/internal/intent"
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
	{"accept", 22, accept},
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

const anyEnrolment = `SELECT student, course FROM views.enrolments
	WHERE student >= (SELECT min(student) + floor($1::float8 * (max(student) - min(student) + 1))::bigint FROM views.enrolments)
	ORDER BY student, course LIMIT 1`

const anyOffer = `WITH open AS (SELECT student, course FROM views.waiting_list WHERE offer IS NOT NULL)
	SELECT student, course FROM open
	WHERE student >= (SELECT min(student) + floor($1::float8 * (max(student) - min(student) + 1))::bigint FROM open)
	ORDER BY student, course LIMIT 1`

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

// place is how a student stands in a course, and the course itself.
type place struct {
	capacity int
	taken    int // places of the course that somebody has
	held     int // places that somebody was offered
	enrolled bool
	waiting  bool
	offer    pgtype.UUID // the event that offered the student a place
}

// look locks the student and the course, in this order everywhere, and tells how
// they stand. Until the transaction ends the student stays, and nobody else takes a
// place of the course.
func look(ctx context.Context, tx pgx.Tx, student int64, course string) (p place, err error) {
	if err := exec(ctx, tx, `SELECT FROM students WHERE id = $1 FOR KEY SHARE`, student); err != nil {
		return p, err
	}
	err = tx.QueryRow(ctx, `SELECT capacity FROM courses WHERE id = $1 FOR NO KEY UPDATE`, course).Scan(&p.capacity)
	if err != nil {
		return p, err
	}
	// A statement of its own: it sees what was committed by those who had the locks before.
	err = tx.QueryRow(ctx, `SELECT
			(SELECT count(*) FROM views.enrolments WHERE course = $1),
			(SELECT count(offer) FROM views.waiting_list WHERE course = $1),
			EXISTS (SELECT FROM views.enrolments WHERE course = $1 AND student = $2),
			EXISTS (SELECT FROM views.waiting_list WHERE course = $1 AND student = $2),
			(SELECT offer FROM views.waiting_list WHERE course = $1 AND student = $2)`, course, student).
		Scan(&p.taken, &p.held, &p.enrolled, &p.waiting, &p.offer)
	return p, err
}

// enrol gives a student a place, or a place on the waiting list where the course is
// full. What was offered to somebody is kept for them.
func enrol(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int64
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return err
	}
	course := pick(rng, courses).id
	p, err := look(ctx, tx, student, course)
	data := map[string]any{"student": student}
	switch {
	case err != nil:
		return err
	case p.enrolled, p.waiting && p.taken+p.held >= p.capacity:
		return errNobody
	case p.taken+p.held < p.capacity:
		return say(ctx, tx, by(student), intent.ID{}, course, "student-enrolled", data)
	}
	return say(ctx, tx, by(student), intent.ID{}, course, "student-waitlisted", data)
}

// accept takes the place that a student was offered.
func accept(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int64
	var course string
	if err := find(ctx, tx, rng, anyOffer, &student, &course); err != nil {
		return err
	}
	p, err := look(ctx, tx, student, course)
	switch {
	case err != nil:
		return err
	case !p.offer.Valid, p.taken >= p.capacity: // the course has become smaller meanwhile
		return errNobody
	}
	return say(ctx, tx, by(student), p.offer.Bytes, course, "student-enrolled", map[string]any{"student": student})
}

// cancel is the example that runs through this service: one intent; as rows, a
// delete and an insert.
func cancel(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int64
	var course string
	if err := find(ctx, tx, rng, anyEnrolment, &student, &course); err != nil {
		return err
	}
	p, err := look(ctx, tx, student, course)
	if err != nil {
		return err
	}
	if !p.enrolled {
		return errNobody
	}
	reason := pick(rng, reasons)
	data := map[string]any{"student": student, "reason": reason}
	if err := say(ctx, tx, by(student), intent.ID{}, course, "enrolment-cancelled", data); err != nil {
		return err
	}
	details := map[string]any{"reason": reason, "weeks": rng.IntN(14), "would_return": rng.IntN(2) == 0}
	return insertFeedback(ctx, tx, student, course, "cancellation", prose(rng, 20+rng.IntN(60)), details)
}

func insertFeedback(ctx context.Context, tx pgx.Tx, student int64, course, kind, body string, details map[string]any) error {
	return exec(ctx, tx, `INSERT INTO feedback (student_id, course_id, kind, body, details) VALUES ($1, $2, $3, $4, $5)`,
		student, course, kind, body, details)
}

func grade(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int64
	var course string
	if err := find(ctx, tx, rng, anyEnrolment, &student, &course); err != nil {
		return err
	}
	p, err := look(ctx, tx, student, course)
	if err != nil {
		return err
	}
	if !p.enrolled {
		return errNobody
	}
	value := json.Number(strconv.Itoa(1+rng.IntN(5)) + "." + pick(rng, []string{"0", "3", "7"}))
	return say(ctx, tx, office, intent.ID{}, course, "grade-given", map[string]any{"student": student, "grade": value})
}

func comment(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int64
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
	var student int64
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return err
	}
	return exec(ctx, tx, `UPDATE students SET email = split_part(email, '@', 1) || '@' || $2, interests = $3 WHERE id = $1`,
		student, mailDomain(rng), some(rng, interests, 4))
}

func reviseEssay(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	var student int64
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

// leave removes a student, who gives up every place and stops waiting: one append
// to the streams of all these courses.
func leave(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	student, places, err := lockStudent(ctx, tx, rng)
	if err != nil {
		return err
	}
	var m meaning
	for _, p := range places {
		if p.waiting {
			m.add(p.course, "waiting-ended", map[string]any{"student": student})
		} else {
			m.add(p.course, "enrolment-cancelled", map[string]any{"student": student, "reason": "left the university"})
		}
	}
	if err := m.append(ctx, tx, by(student), intent.ID{}); err != nil {
		return err
	}
	return exec(ctx, tx, `DELETE FROM students WHERE id = $1`, student)
}

// renumber changes the key of a student, and of all places that the student has.
func renumber(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	student, places, err := lockStudent(ctx, tx, rng)
	if err != nil {
		return err
	}
	var becomes int64
	err = tx.QueryRow(ctx, `UPDATE students SET id = nextval('student_number') WHERE id = $1 RETURNING id`, student).Scan(&becomes)
	if err != nil {
		return err
	}
	var m meaning
	for _, p := range places {
		m.add(p.course, "student-renumbered", map[string]any{"student": student, "becomes": becomes})
	}
	return m.append(ctx, tx, office, intent.ID{})
}

// held is a place of a student, or one on a waiting list.
type held struct {
	course  string
	waiting bool
}

// lockStudent picks a student whom nobody enrols, grades or removes until the
// transaction ends, and tells where the student has a place or waits for one.
func lockStudent(ctx context.Context, tx pgx.Tx, rng *rand.Rand) (student int64, places []held, err error) {
	if err := find(ctx, tx, rng, anyStudent, &student); err != nil {
		return 0, nil, err
	}
	if err := exec(ctx, tx, `SELECT FROM students WHERE id = $1 FOR UPDATE`, student); err != nil {
		return 0, nil, err
	}
	rows, err := tx.Query(ctx, `SELECT course, false FROM views.enrolments WHERE student = $1
		UNION ALL SELECT course, true FROM views.waiting_list WHERE student = $1 ORDER BY 1, 2`, student)
	if err != nil {
		return 0, nil, err
	}
	places, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h held, err error) { return h, row.Scan(&h.course, &h.waiting) })
	return student, places, err
}

func archive(ctx context.Context, tx pgx.Tx, _ *rand.Rand) error {
	return exec(ctx, tx, `DELETE FROM feedback WHERE id IN (
		SELECT id FROM feedback WHERE id < (SELECT max(id) FROM feedback) - $1 ORDER BY id LIMIT $2)`, keptFeedback, archiveAtATime)
}

// regret means something, does it and takes both back.
func regret(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	if err := cancel(ctx, tx, rng); err != nil {
		return err
	}
	return errRegret
}
