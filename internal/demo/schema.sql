-- The university, but for enrolments and waiting lists: those are views of events.
-- Every statement may be run again.

CREATE SEQUENCE IF NOT EXISTS student_number START 1000;

CREATE TABLE IF NOT EXISTS students (
    id        integer PRIMARY KEY DEFAULT nextval('student_number'), -- changes when a student is renumbered
    name      text    NOT NULL,
    email     text    NOT NULL UNIQUE,
    joined    date    NOT NULL DEFAULT current_date,
    interests text[]  NOT NULL DEFAULT '{}',
    essay     text    NOT NULL -- large: the stream leaves it out of updates that do not touch it
);
ALTER TABLE students ALTER COLUMN essay SET STORAGE EXTERNAL;

CREATE TABLE IF NOT EXISTS courses (
    id       text         PRIMARY KEY,
    title    text         NOT NULL,
    capacity integer      NOT NULL CHECK (capacity > 0),
    credits  numeric(4,1) NOT NULL,
    syllabus text         NOT NULL -- large
);
ALTER TABLE courses ALTER COLUMN syllabus SET STORAGE EXTERNAL;

-- What was said stays when the student leaves: no foreign keys.
CREATE TABLE IF NOT EXISTS feedback (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    student_id integer     NOT NULL,
    course_id  text        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('cancellation', 'praise', 'complaint')),
    body       text        NOT NULL,
    details    jsonb       NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL DEFAULT now()
);
